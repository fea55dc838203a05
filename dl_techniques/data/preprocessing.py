"""What pixels a network expects, and how a picture is brought to its size."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from dl_techniques.errors import VariantError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
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
