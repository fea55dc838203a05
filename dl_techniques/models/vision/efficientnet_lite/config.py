"""The numbers of an EfficientNet-Lite, read from one YAML file a variant."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

from dl_techniques.errors import VariantError
from dl_techniques.models.vision import variant_files
from dl_techniques.models.vision.arguments import check_number, check_whole


@dataclasses.dataclass(frozen=True)
class EfficientNetLiteConfig:
    """Numbers of one network; the fields are `EfficientNetLite`'s arguments.

    Args:
        embed_dims: channels of each stage.
        depths: blocks of each stage.
        kernel_sizes: of the depthwise convolutions of each stage.
        strides: of the first block of each stage.
        expansions: width inside a block over its input channels, of each stage.
        stem_dim: channels of the stem.
        head_dim: channels of the last feature map.
        dropout_rate: before the classifier, in training.
        num_classes: width of the classifier.
        image_size: side of the square input that the network is meant for, pixels.
        mean: pixel mean of each colour, on the scale [0, 1].
        std: pixel deviation of each colour, on the scale [0, 1].
        crop_fraction: part of the resized picture that the centre crop keeps.
        interpolation: how pictures are resized.

    Raises:
        VariantError: lengths that do not agree.

    Example:
        >>> EfficientNetLiteConfig.from_variant("efficientnet_lite0").head_dim
        1280
    """

    embed_dims: tuple[int, ...] = (16, 24, 40, 80, 112, 192, 320)
    depths: tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    kernel_sizes: tuple[int, ...] = (3, 3, 5, 3, 5, 5, 3)
    strides: tuple[int, ...] = (1, 2, 2, 2, 1, 2, 1)
    expansions: tuple[int, ...] = (1, 6, 6, 6, 6, 6, 6)
    stem_dim: int = 32
    head_dim: int = 1280
    dropout_rate: float = 0.2
    num_classes: int = 1000
    image_size: int = 224
    mean: tuple[float, ...] = (127 / 255,) * 3
    std: tuple[float, ...] = (128 / 255,) * 3
    crop_fraction: float = 0.875
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        """Checks every number, and that the stages agree."""
        if not self.embed_dims:
            raise VariantError("embed_dims is empty; give the channels of at least one stage")
        stages = ("embed_dims", "depths", "kernel_sizes", "strides", "expansions")
        for field in (*stages, "stem_dim", "head_dim"):
            check_whole(field, getattr(self, field), 1)
        check_whole("num_classes", self.num_classes, 0)
        check_number("dropout_rate", self.dropout_rate, 0.0, 1.0)
        for field in stages:
            if len(getattr(self, field)) != len(self.embed_dims):
                raise VariantError(
                    f"{field} has {len(getattr(self, field))} entries for {len(self.embed_dims)} "
                    f"stages of embed_dims {list(self.embed_dims)}; give one a stage"
                )
        if not all(size % 2 for size in self.kernel_sizes):
            raise VariantError(f"kernel_sizes is {list(self.kernel_sizes)}; expected odd numbers")

    @property
    def total_stride(self) -> int:
        """Input pixels per place of the last map, along one side."""
        return 2 * math.prod(self.strides)

    def same_network(self, other: EfficientNetLiteConfig) -> bool:
        """Whether both have the same layers below the classifier."""
        return self._layers() == other._layers()

    def _layers(self) -> tuple[Any, ...]:
        stages = (self.embed_dims, self.depths, self.kernel_sizes, self.strides, self.expansions)
        return (*stages, self.stem_dim, self.head_dim)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "config") -> EfficientNetLiteConfig:
        """A config from plain values; lists become tuples.

        Raises:
            VariantError: an unknown key (the nearest right one is named), or bad values.
        """
        return variant_files.config_from(cls, values, source)

    @classmethod
    def from_variant(cls, name: str) -> EfficientNetLiteConfig:
        """The config of a named variant.

        Raises:
            VariantError: there is no such variant (the nearest name is given).
        """
        return variant_files.named(load_variants(), name)


@functools.cache
def load_variants() -> dict[str, EfficientNetLiteConfig]:
    """All variants of the folder `variants/efficientnet_lite` by name, smallest first."""
    folder = variant_files.variants_folder() / "efficientnet_lite"
    return {
        path.stem: EfficientNetLiteConfig.from_dict(variant_files.read_fields(path), path.name)
        for path in sorted(folder.glob("*.yaml"))
    }
