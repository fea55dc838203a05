"""What comes out of `optimize`: for classifiers and for whole models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dl_techniques.compression.optimization.classifier_files import Measured
from dl_techniques.compression.optimization.steps import StepReport


@dataclass(frozen=True)
class OptimizeReport:
    """What came out.

    Attributes:
        source: what was optimized.
        output: the file that was written.
        recipe: the steps as they were done.
        pictures: number of held-out pictures, or questions about pictures, that accuracy was
            measured on; 0 without data.
        before: the model as it is, in float32.
        after: the file.
        steps: of training, each with its accuracy in Keras.
        notes: what the user has to know.
    """

    source: str
    output: str
    recipe: dict[str, Any]
    pictures: int
    before: Measured
    after: Measured
    steps: tuple[StepReport, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
