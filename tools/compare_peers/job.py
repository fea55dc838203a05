"""What is compared: numbers that every process reads from the folder of a comparison."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

FILE = "job.json"
IMAGE_ID = 3
"""The token that stands where rows of a picture go."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One comparison.

    Args:
        work: "vision" (a network without classifier) or "vlm" (first token and decoding).
        network: variant of the vision network, or published size of the model.
        image_size: side of the square pictures, pixels.
        batch_size: pictures at once; 1 for "vlm".
        threads: of every peer; 0 for as many as there are cores.
        new_tokens: tokens that are decoded, for "vlm".
        text_tokens: tokens of the question, for "vlm".
        numbers: of the model that are others than the size's, for "vlm".
        device: "cpu", or "cuda" for a graphics card.
    """

    work: str
    network: str
    image_size: int
    batch_size: int = 1
    threads: int = 0
    new_tokens: int = 32
    text_tokens: int = 24
    numbers: dict[str, Any] = dataclasses.field(default_factory=dict)
    device: str = "cpu"

    @property
    def runs(self) -> dict[str, int]:
        """How many runs of a turn count, at least, and how many come before them.

        On a card the first raise its clock, and caches forget the last peer.
        """
        if self.device == "cpu":
            return {}
        return {"least": 2, "uncounted": 1} if self.work == "vlm" else {"least": 5, "uncounted": 2}

    def write(self, folder: Path) -> None:
        """Leaves the numbers in the folder."""
        (folder / FILE).write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Job:
        """The numbers that `write` left."""
        return cls(**json.loads((folder / FILE).read_text(encoding="utf-8")))

    def pictures(self, seed: int = 7) -> np.ndarray:
        """float32[B, S, S, 3] in [0, 1): coloured patches under noise.

        Noise alone looks the same to a network every time.
        """
        rng = np.random.default_rng(seed)
        side = self.image_size // 8
        colours = rng.random((self.batch_size, 8, 8, 3))
        patches = np.kron(colours, np.ones((1, side, side, 1)))
        noise = rng.random((self.batch_size, self.image_size, self.image_size, 3))
        return (0.7 * patches + 0.3 * noise).astype("float32")

    def prompt(self, image_tokens: int) -> list[int]:
        """A few words, the places of the picture, the other words of the question."""
        words = self.words(1)
        return [*words[:4], *[IMAGE_ID] * image_tokens, *words[4:]]

    def words(self, seed: int) -> list[int]:
        """Ids of as many random words as a question has."""
        ids: list[int] = np.random.default_rng(seed).integers(4, 100, self.text_tokens).tolist()
        return ids
