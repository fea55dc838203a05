"""The numbers of a network, read from one YAML file a variant."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dl_techniques.errors import VariantError
from dl_techniques.layers.attention_kinds import check_kind
from dl_techniques.models.vision import variant_files
from dl_techniques.models.vision.arguments import check_number, check_whole, is_whole

HEAD_DIM = 32
"""Channels of one attention head where `num_heads` is not given."""
SMALLEST_RATIO = 1e-4
"""A ConvFFN needs hidden channels; no network has ten thousand for each."""


@dataclasses.dataclass(frozen=True)
class FastVLMConfig:
    """Numbers of one network of the family; the fields are `FastVLM`'s arguments.

    Args:
        embed_dims: channels of each stage.
        depths: blocks of each stage.
        num_heads: attention heads of each stage; `None` means channels // 32.
        mixers: "repmixer" or "attention" for each stage; `None` means attention in the last only.
        positional_stages: indices of stages that begin with a conditional positional encoding;
            `None` means the attention stages.
        mlp_ratio: hidden width of the ConvFFNs over channels; one number, or one a stage.
        dropout_rate: dropout inside blocks and before the classifier.
        drop_path_rate: stochastic depth of the last block; grows linearly from 0 over all blocks.
        use_se: squeeze-and-excitation in every downsample.
        se_stages: indices of stages whose downsample has it; `None` follows `use_se`.
        downsample_activation: GELU after the 7x7 downsample convolution.
        stem_scale_branch: 1x1 branches in the stem.
        attention_norm: "batch" or "layer".
        attention_kind: which places attention stages let look at which: "full", "window",
            "strided" or "linear".
        attention_extent: side of a window (8) or of a strided cell (2), in places of the map.
        layer_scale_init: start of all layer scales.
        tail_expansion: the tail convolution multiplies channels by it; 0 means no tail.
        multi_scale: how many stages before the last are seen beside it where there is no
            classifier, laid out cell by cell on its grid.
        num_classes: width of the classifier.
        image_size: side of the square input that the network is meant for, pixels.
        mean: pixel mean of each colour, on the scale [0, 1].
        std: pixel deviation of each colour, on the scale [0, 1].
        crop_fraction: part of the resized picture that the centre crop keeps.
        interpolation: how pictures are resized.

    Raises:
        VariantError: lengths that do not agree, or a mixer or norm that does not exist.

    Example:
        >>> FastVLMConfig.from_variant("nano").embed_dims
        (24, 48, 96)
    """

    embed_dims: tuple[int, ...] = (64, 128, 256)
    depths: tuple[int, ...] = (3, 4, 6)
    num_heads: tuple[int, ...] | None = None
    mixers: tuple[str, ...] | None = None
    positional_stages: tuple[int, ...] | None = None
    mlp_ratio: float | tuple[float, ...] = 4.0
    dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    use_se: bool = False
    se_stages: tuple[int, ...] | None = None
    downsample_activation: bool = True
    stem_scale_branch: bool = True
    attention_norm: str = "batch"
    attention_kind: str = "full"
    attention_extent: int | None = None
    layer_scale_init: float = 1e-5
    tail_expansion: int = 0
    multi_scale: int = 0
    num_classes: int = 1000
    image_size: int = 224
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    crop_fraction: float = 1.0
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        """Checks every number, and that the stages agree."""
        stages = len(self.embed_dims)
        self._check_numbers(stages)
        for field in ("depths", "num_heads", "mixers"):
            values = getattr(self, field)
            if values is not None and len(values) != stages:
                raise VariantError(
                    f"{field} has {len(values)} entries for {stages} stages of embed_dims "
                    f"{list(self.embed_dims)}; give one a stage"
                )
        if isinstance(self.mlp_ratio, tuple) and len(self.mlp_ratio) != stages:
            raise VariantError(
                f"mlp_ratio has {len(self.mlp_ratio)} entries for {stages} stages of embed_dims "
                f"{list(self.embed_dims)}; give one number, or one a stage"
            )
        for kind in self.stage_mixers:
            if kind not in ("repmixer", "attention"):
                raise VariantError(f'mixers holds {kind!r}; use "repmixer" or "attention"')
        if self.attention_norm not in ("batch", "layer"):
            raise VariantError(f'attention_norm is {self.attention_norm!r}; use "batch" or "layer"')
        try:
            check_kind(self.attention_kind, self.attention_extent)
        except ValueError as error:
            raise VariantError(str(error)) from error
        if not (is_whole(self.multi_scale, 0) and self.multi_scale < stages):
            raise VariantError(
                f"multi_scale is {self.multi_scale}; a network of {stages} stages has 0 to "
                f"{stages - 1} stages before the last"
            )
        self._check_heads()

    def _check_numbers(self, stages: int) -> None:
        """Refuses numbers that mean nothing, also where no layer would use them."""
        if not stages:
            raise VariantError("embed_dims is empty; give the channels of at least one stage")
        for field in ("embed_dims", "num_heads"):
            check_whole(field, getattr(self, field) or (), 1)
        for field in ("depths", "num_classes", "tail_expansion"):
            check_whole(field, getattr(self, field), 0)
        for field in ("positional_stages", "se_stages"):
            places = getattr(self, field) or ()
            check_whole(field, places, 0)
            if any(place >= stages for place in places):
                raise VariantError(
                    f"{field} is {list(places)}; the {stages} stages are 0 to {stages - 1}"
                )
        for ratio in self.mlp_ratio if isinstance(self.mlp_ratio, tuple) else (self.mlp_ratio,):
            check_number("mlp_ratio", ratio, SMALLEST_RATIO)
        for field in ("dropout_rate", "drop_path_rate"):
            check_number(field, getattr(self, field), 0, 1)
        check_number("layer_scale_init", self.layer_scale_init, -math.inf)

    def _check_heads(self) -> None:
        for stage, kind in enumerate(self.stage_mixers):
            dim, heads = self.embed_dims[stage], self.heads(stage)
            if kind == "attention" and (heads < 1 or dim % heads):
                raise VariantError(
                    f"stage {stage} has {dim} channels, which cannot be split into {heads} heads; "
                    "change embed_dims or num_heads"
                )

    @property
    def stage_mixers(self) -> tuple[str, ...]:
        """The mixer of each stage."""
        if self.mixers is not None:
            return self.mixers
        return ("repmixer",) * (len(self.embed_dims) - 1) + ("attention",)

    @property
    def mlp_ratios(self) -> tuple[float, ...]:
        """The ConvFFNs' hidden width over channels, of each stage."""
        ratios = self.mlp_ratio
        return ratios if isinstance(ratios, tuple) else (ratios,) * len(self.embed_dims)

    @property
    def total_stride(self) -> int:
        """Input pixels per place of the last map, along one side."""
        return 4 * 2 ** (len(self.embed_dims) - 1)

    @property
    def feature_dim(self) -> int:
        """Channels of the last map of a network without classifier."""
        last = self.embed_dims[-1] * (self.tail_expansion or 1)
        finer = (4**i * self.embed_dims[-1 - i] for i in range(1, self.multi_scale + 1))
        return last + sum(finer)

    def heads(self, stage: int) -> int:
        """Attention heads of a stage."""
        return self.num_heads[stage] if self.num_heads else self.embed_dims[stage] // HEAD_DIM

    def has_position(self, stage: int) -> bool:
        """Whether a stage begins with a conditional positional encoding."""
        if self.positional_stages is not None:
            return stage in self.positional_stages
        return self.stage_mixers[stage] == "attention"

    def has_se(self, stage: int) -> bool:
        """Whether the downsample before a stage has squeeze-and-excitation."""
        return stage in self.se_stages if self.se_stages is not None else self.use_se

    def drop_path_rates(self, stage: int) -> list[float]:
        """Stochastic depth rates of a stage's blocks, linear over all blocks of the network."""
        total, before = sum(self.depths), sum(self.depths[:stage])
        step = self.drop_path_rate / max(total - 1, 1)
        return [step * (before + i) for i in range(self.depths[stage])]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "config") -> FastVLMConfig:
        """A config from plain values; lists become tuples.

        Raises:
            VariantError: an unknown key (the nearest right one is named), or bad values.
        """
        return variant_files.config_from(cls, values, source)

    @classmethod
    def from_variant(cls, name: str) -> FastVLMConfig:
        """The config of a named variant.

        Raises:
            VariantError: there is no such variant (the nearest name is given).
        """
        return variant_files.named(load_variants(), name)

    def same_network(self, other: FastVLMConfig) -> bool:
        """Whether both have the same layers; what only training or pictures see may differ."""
        return self._layers() == other._layers()

    def _layers(self) -> tuple[Any, ...]:
        stages = range(len(self.depths))
        per_stage = [
            (self.embed_dims[i], self.depths[i], self.stage_mixers[i], self.has_position(i))
            + ((self.heads(i),) if self.stage_mixers[i] == "attention" else ())
            + ((self.has_se(i),) if i else ())
            for i in stages
        ]
        norm = self.attention_norm if "attention" in self.stage_mixers else None
        downsample = self.downsample_activation if len(self.depths) > 1 else None
        return (
            per_stage, self.mlp_ratios, downsample, self.stem_scale_branch, norm,
            self.tail_expansion, self.multi_scale,
        )  # fmt: skip


def without_unused(values: Mapping[str, Any]) -> dict[str, Any]:
    """A saved network's arguments without numbers that no layer uses and the config refuses.

    Files may hold them: heads of stages without attention, stages that do not exist.
    """
    values = dict(values)
    stages = len(values.get("embed_dims") or ())
    mixers = values.get("mixers") or ["repmixer"] * (stages - 1) + ["attention"]
    heads = values.get("num_heads")
    if heads and len(heads) == len(mixers):
        values["num_heads"] = [
            number if kind == "attention" else max(number, 1)
            for number, kind in zip(heads, mixers, strict=True)
        ]
    for field in ("positional_stages", "se_stages"):
        if values.get(field):
            values[field] = [place for place in values[field] if place < stages]
    return values


@functools.cache
def load_variants() -> dict[str, FastVLMConfig]:
    """All variants of the `variants` folder by name, smallest first."""
    configs = {path.stem: _read(path) for path in sorted(_variants_folder().glob("*.yaml"))}
    return dict(sorted(configs.items(), key=lambda item: (len(item[1].depths), _weight(item[1]))))


def _weight(config: FastVLMConfig) -> int:
    return sum(
        depth * dim * dim for depth, dim in zip(config.depths, config.embed_dims, strict=True)
    )


def _read(path: Path) -> FastVLMConfig:
    return FastVLMConfig.from_dict(variant_files.read_fields(path), source=path.name)


_variants_folder = variant_files.variants_folder
