"""`PictureNetwork`: what a network that takes pictures says about itself.

Who exports, compresses or times a network asks it, and needs to know no class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from dl_techniques.data.geometry import pad_and_resize
from dl_techniques.data.images import ImageSource, load_image
from dl_techniques.data.preprocessing import UNIT
from dl_techniques.errors import ExportError
from dl_techniques.typing import Tensor

if TYPE_CHECKING:
    import keras

Size = tuple[int, int]
NAMES = ("FastVLM", "MobileOne", "EfficientNetLite", "Towers", "FastVLMCausalLM")
WITHOUT_SIZE = 256
"""Side of the pictures where neither the network nor its preprocessing names one."""


@dataclass(frozen=True)
class PictureRule:
    """How a picture of any kind becomes a network's input.

    Attributes:
        to_bytes: brings it to uint8[H, W, 3].
        mean: of each colour on the scale [0, 1], taken off outside the network.
        std: of each colour, divided by after that.
        lies_in: what the network takes pixels in before that, "[0, 1]" or "[0, 255]".
    """

    to_bytes: Callable[[ImageSource], np.ndarray]
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    lies_in: str = UNIT


@runtime_checkable
class PictureNetwork(Protocol):
    """A network that takes pictures: the vision families, `ImageEmbedding`, `FastVLMCausalLM`.

    What gives layers is a method: Keras looks through a model's properties when it writes weights.

    Example:
        >>> from dl_techniques import FastVLM
        >>> network = FastVLM.from_variant("nano", input_shape=(64, 64, 3))
        >>> network.parts(), network.input_size
        (('classifier', 'encoder', 'features'), (64, 64))
    """

    @property
    def input_size(self) -> Size:
        """Height and width of the pictures where nobody asks for others."""

    @property
    def total_stride(self) -> int | None:
        """Pixels per place of the last map; None where only pictures of `input_size` fit."""

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms that it can be brought to, the training form first; none for some."""

    def parts(self) -> tuple[str, ...]:
        """What it can be exported as; the first is what it is made for."""

    def picture_encoder(self) -> Any:
        """The Keras model in it that pictures enter."""

    def picture_rule(self, size: Size) -> PictureRule:
        """How it wants its pictures, at a size."""

    def copy(self, size: Size, dtype: str = "float32") -> PictureNetwork:
        """A copy of what makes its features, for pictures of a size; itself does not change.

        Args:
            size: (H, W).
            dtype: of all layers of the copy.
        """

    def fold(self) -> None:
        """Fuses and folds everything that can be; what it computes stays the same."""

    def part_outputs(self, part: str, images: Tensor) -> dict[str, Tensor]:
        """A part's named outputs.

        Args:
            part: one of `parts()`, but "vlm".
            images: float[B, H, W, 3], prepared.
        """


@runtime_checkable
class StagedNetwork(Protocol):
    """A network of residual stages with a downsample between two: its channels can be pruned.

    Attributes:
        stem: of three blocks.
        stages: each of residual blocks of one width.
        downsample_layers: one before every stage but the first.
        tail: after the last stage; None without one.
        head: layers of the classifier; none without one.
    """

    name: str
    stem: Any
    stages: Sequence[Any]
    downsample_layers: Sequence[Any]
    tail: Any
    head: Sequence[Any]


class FixedEncoder:
    """Any Keras model that makes a map of a picture: of one size and one form.

    Args:
        encoder: float[B, H, W, C] -> float[B, h, w, D].
    """

    total_stride: int | None = None
    forms: tuple[str, ...] = ()

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder

    @property
    def input_size(self) -> Size:
        """What its input says."""
        height, width = self.encoder.input_shape[1:3]
        return (height or WITHOUT_SIZE, width or WITHOUT_SIZE)

    def parts(self) -> tuple[str, ...]:
        """Its map."""
        return ("encoder",)

    def picture_encoder(self) -> Any:
        """The model."""
        return self.encoder

    def picture_rule(self, size: Size) -> PictureRule:
        """A plain one: padded to a square, pixels in [0, 1]."""
        return padded_square(size)

    def copy(self, size: Size, dtype: str = "float32") -> FixedEncoder:
        """A copy in another type; the size is its own."""
        copy = type(self.encoder).from_config({**self.encoder.get_config(), "dtype": dtype})
        copy.set_weights(self.encoder.get_weights())
        return FixedEncoder(copy)

    def fold(self) -> None:
        """There is nothing to fold."""

    def part_outputs(self, part: str, images: Tensor) -> dict[str, Tensor]:
        """The map."""
        return {"features": self.encoder(images)}


def padded_square(size: Size) -> PictureRule:
    """Pictures padded to a square and resized, pixels in [0, 1]."""
    return PictureRule(lambda source: pad_and_resize(load_image(source), size[0]))


def encoder_network(encoder: Any) -> PictureNetwork:
    """An encoder as a `PictureNetwork`: itself where it is one, else as it stands."""
    return encoder if isinstance(encoder, PictureNetwork) else FixedEncoder(encoder)


def picture_network(model: keras.Model) -> PictureNetwork:
    """A model as a `PictureNetwork`.

    Raises:
        ExportError: it is none of this package.
    """
    if isinstance(model, PictureNetwork):
        return model
    raise no_network(model)


def no_network(model: keras.Model) -> ExportError:
    """The error that says which classes there are."""
    return ExportError(
        f"a {type(model).__name__} cannot be exported; expected a model of the class "
        f"{', '.join(NAMES)}, or a preset or file that holds one"
    )
