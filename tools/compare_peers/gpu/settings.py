"""What every process of the comparison reads beside its job."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

FILE = "settings.json"
REFERENCE = "reference.npy"
"""What the baseline computes in float32, in the folder of its shape."""
DTYPE = "bfloat16"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        device: "cuda", or "cpu" to try the same code without a card.
        turn_seconds: a turn goes on until it has taken so long.
        least: runs of a turn that count, at least.
        uncounted: runs before them: the card raises its clock, and caches forget the last peer.
        cudnn_benchmark: whether torch tries cuDNN's algorithms, theirs and ours.
    """

    device: str = "cuda"
    turn_seconds: float = 0.15
    least: int = 5
    uncounted: int = 2
    cudnn_benchmark: bool = False

    def write(self, folder: Path) -> None:
        """Leaves the settings in the folder."""
        (folder / FILE).write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Settings:
        """The settings that `write` left."""
        return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))
