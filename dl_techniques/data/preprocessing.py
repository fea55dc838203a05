"""What pixels a network expects, and how a picture is brought to its size."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from dl_techniques.errors import VariantError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
UNIT, BYTES = "[0, 1]", "[0, 255]"
"""What pixels lie in: divided by 255 outside the network, or inside (`include_preprocessing`)."""
FIELDS = {
    "size": "image_size",
    "mean": "mean",
    "std": "std",
    "crop_fraction": "crop_fraction",
    "interpolation": "interpolation",
}
"""Field here -> field of a variant."""


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How pictures become the input of one network with one set of weights.

    The shorter side is resized to `size / crop_fraction`, the centre `size` x `size` is kept, bytes
    are divided by 255, then `(x - mean) / std` for each colour. The same network needs different
    numbers with different weights: MCi3 is fed with CLIP's statistics by MobileCLIP2 and with
    plain [0, 1] by FastVLM.

    Args:
        size: side of the square input, pixels. Defaults to 224.
        mean: of each colour, on the scale [0, 1]. Defaults to 0.
        std: of each colour, on the scale [0, 1]. Defaults to 1.
        crop_fraction: part of the resized side that the centre crop keeps. Defaults to 1.
        interpolation: "bicubic" or "bilinear". Defaults to "bicubic".

    Raises:
        VariantError: a number that no picture can be prepared with.

    Example:
        >>> Preprocessing(size=256, crop_fraction=0.9).resized_side
        284
    """

    size: int = 224
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    crop_fraction: float = 1.0
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        """Checks ranges; lists become tuples."""
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        wrong = {
            "size": self.size < 1,
            "std": len(self.std) != len(self.mean) or min(self.std) <= 0,
            "crop_fraction": not 0 < self.crop_fraction <= 1,
            "interpolation": self.interpolation not in ("bicubic", "bilinear"),
        }
        for field, is_wrong in wrong.items():
            if is_wrong:
                raise VariantError(
                    f"preprocessing: {field} is {getattr(self, field)!r}; expected size >= 1, as "
                    'many std > 0 as means, crop_fraction in (0, 1], "bicubic" or "bilinear"'
                )

    @property
    def resized_side(self) -> int:
        """Pixels of the shorter side before the centre crop."""
        return int(self.size / self.crop_fraction)

    @classmethod
    def of(cls, config: Any) -> Preprocessing:
        """What a variant says."""
        return cls(**{ours: getattr(config, theirs) for ours, theirs in FIELDS.items()})

    @classmethod
    def from_config(cls, values: Preprocessing | Mapping[str, Any]) -> Preprocessing:
        """The inverse of `get_config`; leaves a ready one as it is.

        Raises:
            VariantError: an unknown field (the nearest is named), or a bad number.
        """
        if isinstance(values, Preprocessing):
            return values
        for key in values:
            if key not in FIELDS:
                near = difflib.get_close_matches(key, FIELDS, n=1) or list(FIELDS)
                raise VariantError(f"preprocessing: unknown field {key!r}; use {', '.join(near)}")
        return cls(**values)

    def get_config(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def variant_fields(self) -> dict[str, Any]:
        """The same numbers under a variant's names."""
        return {theirs: getattr(self, ours) for ours, theirs in FIELDS.items()}


def pixel_range(network: keras.Model) -> str:
    """What the pixels that a network is called with lie in, before mean and deviation.

    Example:
        >>> from dl_techniques import FastVLM
        >>> pixel_range(FastVLM.from_variant("nano", include_preprocessing=True))
        '[0, 255]'
    """
    return BYTES if getattr(network, "include_preprocessing", False) else UNIT


def to_input(
    pictures: np.ndarray, preprocessing: Preprocessing, include_preprocessing: bool = False
) -> np.ndarray:
    """uint8[..., H, W, 3] as a network takes it: float32 of the same shape.

    Args:
        pictures: of the network's size.
        preprocessing: of the network.
        include_preprocessing: whether the network itself scales what it is given.
    """
    values: np.ndarray = pictures.astype("float32")
    if include_preprocessing:
        return values
    mean = np.asarray(preprocessing.mean, "float32")
    std = np.asarray(preprocessing.std, "float32")
    scaled: np.ndarray = (values / 255.0 - mean) / std
    return scaled


def rescaling_layers(preprocessing: Preprocessing) -> list[keras.layers.Layer]:
    """Layers that make a network's input of pixels 0..255, in float32 whatever it computes in."""
    layers: list[Any] = [keras.layers.Rescaling(1 / 255, name="rescaling", dtype="float32")]
    mean, std = np.asarray(preprocessing.mean), np.asarray(preprocessing.std)
    if mean.any() or (std != 1).any():
        # Rescaling by numbers of each colour would follow the global image data format.
        layers.append(
            keras.layers.Normalization(
                axis=-1,
                mean=mean.tolist(),
                variance=np.square(std).tolist(),
                name="normalization",
                dtype="float32",
            )
        )
    return layers
