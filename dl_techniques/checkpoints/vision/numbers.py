"""The numbers of a network, read off the names and shapes of its weights."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from dl_techniques.checkpoints.vision.efficientnet_lite import NAME, read_efficientnet_lite
from dl_techniques.checkpoints.vision.layouts import Layout
from dl_techniques.errors import CheckpointError, VariantError
from dl_techniques.models.vision.efficientnet_lite.config import EfficientNetLiteConfig
from dl_techniques.models.vision.efficientnet_lite.config import load_variants as lite_variants
from dl_techniques.models.vision.fast_vlm.config import HEAD_DIM, FastVLMConfig
from dl_techniques.models.vision.fast_vlm.config import load_variants as fast_vit_variants
from dl_techniques.models.vision.mobile_one.config import MobileOneConfig
from dl_techniques.models.vision.mobile_one.config import load_variants as mobile_one_variants

Shapes = Mapping[str, tuple[int, ...]]
FOR_FASTVLM, FOR_PICTURES = "fastvithd", "mci3"
"""One network under two names: as FastVLM's tower and as MobileCLIP2's."""


def variant_of(layout: Layout, shapes: Shapes, wanted: str | None = None) -> str:
    """The name of the variant that a file holds.

    Args:
        layout: of the file.
        shapes: name without prefix -> shape.
        wanted: what the caller says it is.

    Raises:
        VariantError: `wanted` does not exist.
        CheckpointError: the file holds another variant than `wanted`, or none that is known.
    """
    found = read_numbers(layout, shapes)
    variants: Mapping[str, Any] = _variants(layout.naming.network)
    config_class: Any = type(found)
    if wanted is not None:
        config = config_class.from_variant(wanted)
        if not _same(config, found, layout.fused):
            held = [name for name, other in variants.items() if _same(other, found, layout.fused)]
            raise CheckpointError(
                f"variant={wanted!r} does not fit the tensors: they are of "
                f"{' or '.join(held) or 'no known variant'} ({_said(found)}), and {wanted} has "
                f"{_said(config)}; leave variant out"
            )
        return wanted
    names = [name for name, other in variants.items() if _same(other, found, layout.fused)]
    if not names:
        raise CheckpointError(
            f"the tensors ({layout}) are of no known variant: {_said(found)}; known: "
            f"{', '.join(variants)}"
        )
    if layout.source == "fastvlm" or FOR_PICTURES not in names:
        return names[0]
    return FOR_PICTURES


def _variants(network: str) -> Mapping[str, Any]:
    if network == NAME:
        return lite_variants()
    return fast_vit_variants() if network == "fast_vit" else mobile_one_variants()


def _said(config: Any) -> str:
    said = f"dims {list(config.embed_dims)}, depths {list(config.depths)}"
    if isinstance(config, MobileOneConfig):
        return f"{said}, {config.num_conv_branches} conv branches"
    if isinstance(config, EfficientNetLiteConfig):
        kernels = "/".join(str(size) for size in config.kernel_sizes)
        return f"{said}, kernels {kernels}, head {config.head_dim}"
    ratios = "/".join(dict.fromkeys(f"{ratio:g}" for ratio in config.mlp_ratios))
    return f"{said}, mlp ratio {ratios}, mixers {'/'.join(config.stage_mixers)}"


def _same(config: Any, found: Any, fused: bool) -> bool:
    """Whether a variant has the layers that were read; some leave no trace in a file."""
    if isinstance(found, MobileOneConfig):
        unseen = {"num_conv_branches": config.num_conv_branches} if fused else {}
        return bool(config.same_network(dataclasses.replace(found, **unseen)))
    if isinstance(found, EfficientNetLiteConfig):
        return bool(config.same_network(found))
    unseen = {"downsample_activation": config.downsample_activation}
    if fused:
        unseen["stem_scale_branch"] = config.stem_scale_branch
    return bool(config.same_network(dataclasses.replace(found, **unseen)))


def read_numbers(
    layout: Layout, shapes: Shapes
) -> FastVLMConfig | MobileOneConfig | EfficientNetLiteConfig:
    """What a file says about its network.

    Raises:
        CheckpointError: stages are missing, or their numbers are no network's.
    """
    try:
        if layout.naming.network == "mobile_one":
            return _mobile_one(layout, shapes)
        if layout.naming.network == NAME:
            return read_efficientnet_lite(layout.naming.words, shapes)
        return _fast_vit(layout, shapes)
    except VariantError as error:
        raise CheckpointError(f"the tensors ({layout}) make no network: {error}") from error


def _fast_vit(layout: Layout, shapes: Shapes) -> FastVLMConfig:
    apple = layout.naming.words == "apple"
    feed_forward = "convffn" if apple else "mlp"
    place = r"network\.(\d+)" if apple else r"stages\.(\d+)\.blocks"
    blocks = _count(rf"{place}\.(\d+)\.{feed_forward}\.fc1\.weight", shapes)
    if not blocks:
        raise CheckpointError(f"the tensors ({layout}) have a stem, but no blocks of any stage")
    prefix = "network.{}" if apple else "stages.{}.blocks"
    starts = [prefix.format(stage) for stage in blocks]
    fc1 = [shapes[f"{start}.0.{feed_forward}.fc1.weight"] for start in starts]
    mixers = [f"{start}.0.token_mixer.qkv.weight" in shapes for start in starts]
    tail = "conv_exp" if apple else "final_conv"
    expanded = shapes.get(f"{tail}.se.{'reduce' if apple else 'fc1'}.weight", (0, 0))[1]
    stem = "patch_embed.0.rbr_scale" if apple else "stem.0.conv_scale"
    return FastVLMConfig(
        embed_dims=tuple(shape[1] for shape in fc1),
        depths=tuple(blocks.values()),
        num_heads=tuple(max(shape[1] // HEAD_DIM, 1) for shape in fc1),
        mixers=tuple("attention" if found else "repmixer" for found in mixers),
        positional_stages=_positions(list(blocks), apple, shapes),
        mlp_ratio=fc1[0][0] / fc1[0][1],
        se_stages=_se_stages(list(blocks), apple, shapes),
        stem_scale_branch=any(name.startswith(stem) for name in shapes),
        attention_norm=_attention_norm(starts, shapes),
        tail_expansion=expanded // fc1[-1][1],
    )


def _positions(blocks: list[int], apple: bool, shapes: Shapes) -> tuple[int, ...]:
    """In Apple's flat list a position stands right before its stage's blocks."""
    stems = [f"network.{place - 1}" if apple else f"stages.{place}.pos_emb" for place in blocks]
    tails = ("pe.weight" if apple else "pos_enc.weight", "reparam_conv.weight")
    return tuple(i for i, s in enumerate(stems) if any(f"{s}.{t}" in shapes for t in tails))


def _se_stages(blocks: list[int], apple: bool, shapes: Shapes) -> tuple[int, ...]:
    if not apple:
        places = {i: f"stages.{place}.downsample" for i, place in enumerate(blocks)}
    else:
        found = sorted({int(m[1]) for n in shapes if (m := re.match(r"network\.(\d+)\.proj\.", n))})
        places = {i: f"network.{place}" for i, place in enumerate(found, start=1)}
    return tuple(i for i, place in places.items() if f"{place}.proj.0.se.fc1.weight" in shapes)


def _attention_norm(starts: list[str], shapes: Shapes) -> str:
    """A BatchNorm has running statistics, a LayerNorm has none."""
    layer = any(
        f"{start}.0.norm.weight" in shapes and f"{start}.0.norm.running_mean" not in shapes
        for start in starts
    )
    return "layer" if layer else "batch"


def _count(pattern: str, shapes: Shapes) -> dict[int, int]:
    """First number in a name -> how many second numbers there are, in order."""
    places: dict[int, set[int]] = {}
    for name in shapes:
        if match := re.fullmatch(pattern, name):
            places.setdefault(int(match[1]), set()).add(int(match[2]))
    return {place: len(places[place]) for place in sorted(places)}


def _mobile_one(layout: Layout, shapes: Shapes) -> MobileOneConfig:
    apple = layout.naming.words == "apple"
    conv, se = ("rbr_conv", "se.reduce") if apple else ("conv_kxk", "attn.fc1")
    place = r"stage([1-9]\d*)\.(\d+)" if apple else r"stages\.(\d+)\.(\d+)"
    blocks = _count(rf"{place}\.(?:{conv}\.0\.conv|reparam_conv)\.weight", shapes)
    excited = _count(rf"{place}\.{re.escape(se)}\.weight", shapes)
    prefix, stem = ("stage{}.1", "stage0") if apple else ("stages.{}.1", "stem")
    tail = "reparam_conv" if layout.fused else f"{conv}.0.conv"
    last = [f"{prefix.format(stage)}.{tail}.weight" for stage in blocks]
    missing = [name for name in [*last, f"{stem}.{tail}.weight"] if name not in shapes]
    if missing or not blocks:
        raise CheckpointError(f"the tensors ({layout}) lack {missing or 'all stages'}")
    first = prefix.format(next(iter(blocks)))
    branches = sum(f"{first}.{conv}.{i}.conv.weight" in shapes for i in range(len(shapes)))
    return MobileOneConfig(
        embed_dims=tuple(shapes[name][0] for name in last),
        depths=tuple(count // 2 for count in blocks.values()),
        stem_dim=shapes[f"{stem}.{tail}.weight"][0],
        num_conv_branches=max(branches, 1),
        se_depths=tuple(excited.get(stage, 0) // 2 for stage in blocks),
    )
