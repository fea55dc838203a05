"""The numbers of a MobileOne, read from one YAML file a variant."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from dl_techniques.errors import VariantError
from dl_techniques.models.vision import variant_files
from dl_techniques.models.vision.arguments import check_whole


@dataclasses.dataclass(frozen=True)
class MobileOneConfig:
    """Numbers of one network; the fields are `MobileOne`'s arguments.

    Args:
        embed_dims: channels of each stage.
        depths: pairs of a depthwise and a pointwise block in each stage.
        stem_dim: channels of the stem.
        num_conv_branches: k x k branches of every block; the stem has one.
        se_depths: pairs with squeeze-and-excitation at the end of each stage.
        num_classes: width of the classifier.
        image_size: side of the square input that the network is meant for, pixels.
        mean: pixel mean of each colour, on the scale [0, 1].
        std: pixel deviation of each colour, on the scale [0, 1].
        crop_fraction: part of the resized picture that the centre crop keeps.
        interpolation: how pictures are resized.

    Raises:
        VariantError: lengths that do not agree.

    Example:
        >>> MobileOneConfig.from_variant("mobileone_s0").embed_dims
        (48, 128, 256, 1024)
    """

    embed_dims: tuple[int, ...] = (48, 128, 256, 1024)
    depths: tuple[int, ...] = (2, 8, 10, 1)
    stem_dim: int = 48
    num_conv_branches: int = 1
    se_depths: tuple[int, ...] | None = None
    num_classes: int = 1000
    image_size: int = 224
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    crop_fraction: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """Checks every number, and that the stages agree."""
        if not self.embed_dims:
            raise VariantError("embed_dims is empty; give the channels of at least one stage")
        for field in ("embed_dims", "depths", "stem_dim", "num_conv_branches"):
            check_whole(field, getattr(self, field), 1)
        check_whole("num_classes", self.num_classes, 0)
        check_whole("se_depths", self.se_depths or (), 0)
        for field in ("depths", "se_depths"):
            values = getattr(self, field)
            if values is not None and len(values) != len(self.embed_dims):
                raise VariantError(
                    f"{field} has {len(values)} entries for {len(self.embed_dims)} stages of "
                    f"embed_dims {list(self.embed_dims)}; give one a stage"
                )

    @property
    def total_stride(self) -> int:
        """Input pixels per place of the last map, along one side."""
        return int(2 ** (len(self.embed_dims) + 1))

    def se_depth(self, stage: int) -> int:
        """Pairs with squeeze-and-excitation at the end of a stage."""
        return self.se_depths[stage] if self.se_depths is not None else 0

    def same_network(self, other: MobileOneConfig) -> bool:
        """Whether both have the same layers below the classifier."""
        return self._layers() == other._layers()

    def _layers(self) -> tuple[Any, ...]:
        se = [self.se_depth(i) for i in range(len(self.depths))]
        return self.embed_dims, self.depths, self.stem_dim, self.num_conv_branches, se

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "config") -> MobileOneConfig:
        """A config from plain values; lists become tuples.

        Raises:
            VariantError: an unknown key (the nearest right one is named), or bad values.
        """
        return variant_files.config_from(cls, values, source)

    @classmethod
    def from_variant(cls, name: str) -> MobileOneConfig:
        """The config of a named variant.

        Raises:
            VariantError: there is no such variant (the nearest name is given).
        """
        return variant_files.named(load_variants(), name)


@functools.cache
def load_variants() -> dict[str, MobileOneConfig]:
    """All variants of the folder `variants/mobileone` by name, smallest first."""
    folder = variant_files.variants_folder() / "mobileone"
    return {
        path.stem: MobileOneConfig.from_dict(variant_files.read_fields(path), path.name)
        for path in sorted(folder.glob("*.yaml"))
    }
