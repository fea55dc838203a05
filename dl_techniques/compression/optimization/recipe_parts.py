"""The parts of a recipe: what each step can be told."""

from __future__ import annotations

from dataclasses import dataclass

from dl_techniques.training.settings import Training

__all__ = [
    "Distil",
    "Export",
    "Prune",
    "QuantizationAware",
    "Quantize",
    "Training",
]


@dataclass(frozen=True)
class Prune:
    """Dropping whole channels, in steps with training after each.

    Attributes:
        fraction: part of the channels to drop, in (0, 1).
        targets: "width", "hidden" or both, see `prune_channels`.
        importance: "l1" or "taylor".
        steps: how often a part of them is dropped.
        epochs: of training after each.
    """

    fraction: float = 0.5
    targets: tuple[str, ...] = ("width", "hidden")
    importance: str = "taylor"
    steps: int = 1
    epochs: int = 2


@dataclass(frozen=True)
class Distil:
    """Learning from a teacher; the student is the pruned network, or a variant that starts anew.

    Attributes:
        student: a variant, where nothing is pruned.
        teacher: a preset or file; None for the network that is being optimized.
        temperature: divisor of both logits.
        alpha: weight of the teacher beside the labels, in [0, 1].
        features: learn the maps of the stages too.
        epochs: of training.
    """

    student: str | None = None
    teacher: str | None = None
    temperature: float = 4.0
    alpha: float = 0.5
    features: bool = False
    epochs: int = 2


@dataclass(frozen=True)
class QuantizationAware:
    """Training with the rounding of int8 in the forward pass.

    Attributes:
        epochs: of training.
        skip: regular expressions; layers whose path one of them finds stay float.
    """

    epochs: int = 1
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Quantize:
    """Fewer bits after training.

    Attributes:
        precision: one of `litert_precision.PRECISIONS`.
        block_size: of int4 weights, see `litert_precision.requantize`.
        skip: weights to leave alone, see there; for the precisions that leave activations float.
    """

    precision: str = "int8"
    block_size: int | None = None
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Export:
    """The file that is written.

    Attributes:
        format: "litert"; "litertlm" for a vision-language model.
        image_size: side of the pictures in pixels; None for the network's own.
    """

    format: str = "litert"
    image_size: int | None = None
