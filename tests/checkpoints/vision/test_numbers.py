"""The variant of a file, from names and shapes written down by hand for each of them."""

from __future__ import annotations

import pytest

from dl_techniques.checkpoints.vision.layouts import NAMINGS, Layout
from dl_techniques.checkpoints.vision.numbers import variant_of
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vision.fast_vlm.config import FastVLMConfig
from dl_techniques.models.vision.mobile_one.config import MobileOneConfig

Shapes = dict[str, tuple[int, ...]]
FAST_VIT = [
    *(f"fastvit_{size}" for size in ("t8", "t12", "s12", "sa12", "sa24", "sa36", "ma36")),
    *(f"mci{i}" for i in range(5)),
    "fastvithd",
]
MOBILE_ONE = [f"mobileone_s{i}" for i in range(5)]


def layout(network: str, fused: bool, source: str = "") -> Layout:
    """timm's."""
    naming = next(n for n in NAMINGS if n.network == network and n.words == "timm")
    return Layout(naming, "", source, fused)


def fast_vit_shapes(config: FastVLMConfig, fused: bool) -> Shapes:
    """What tells one network from another."""
    shapes: Shapes = {}
    for i, (dim, depth) in enumerate(zip(config.embed_dims, config.depths, strict=True)):
        hidden = int(dim * config.mlp_ratio)
        for b in range(depth):
            shapes[f"stages.{i}.blocks.{b}.mlp.fc1.weight"] = (hidden, dim, 1, 1)
        if config.stage_mixers[i] == "attention":
            shapes[f"stages.{i}.blocks.0.token_mixer.qkv.weight"] = (3 * dim, dim)
            shapes[f"stages.{i}.blocks.0.norm.weight"] = (dim,)
            if config.attention_norm == "batch":
                shapes[f"stages.{i}.blocks.0.norm.running_mean"] = (dim,)
        if config.has_position(i):
            place = "reparam_conv" if fused else "pos_enc"
            shapes[f"stages.{i}.pos_emb.{place}.weight"] = (dim, 1, 7, 7)
        if i and config.has_se(i):
            shapes[f"stages.{i}.downsample.proj.0.se.fc1.weight"] = (dim // 4, dim, 1, 1)
    if config.stem_scale_branch and not fused:
        shapes["stem.0.conv_scale.conv.weight"] = (config.embed_dims[0], 3, 1, 1)
    tail = 2 * config.embed_dims[-1]
    return shapes | {"final_conv.se.fc1.weight": (tail // 16, tail, 1, 1)}


def mobile_one_shapes(config: MobileOneConfig, fused: bool) -> Shapes:
    """What tells one network from another."""
    tails = ["reparam_conv"] if fused else [
        f"conv_kxk.{b}.conv" for b in range(config.num_conv_branches)
    ]  # fmt: skip
    stem = tails[0]
    shapes: Shapes = {f"stem.{stem}.weight": (config.stem_dim, 3, 3, 3)}
    for stage, (dim, depth) in enumerate(zip(config.embed_dims, config.depths, strict=True)):
        for place in range(2 * depth):
            for tail in tails:
                shapes[f"stages.{stage}.{place}.{tail}.weight"] = (dim, dim, 1, 1)
            if place >= 2 * (depth - config.se_depth(stage)):
                shapes[f"stages.{stage}.{place}.attn.fc1.weight"] = (dim // 16, dim, 1, 1)
    return shapes


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", FAST_VIT)
def test_fast_vit(name: str, fused: bool) -> None:
    shapes = fast_vit_shapes(FastVLMConfig.from_variant(name), fused)
    twins = {"mci3", "fastvithd"}  # one network, told apart by what it was made for
    plain = "mci3" if name in twins else name
    assert variant_of(layout("fast_vit", fused), shapes) == plain
    tower = "fastvithd" if name in twins else name
    assert variant_of(layout("fast_vit", fused, "fastvlm"), shapes) == tower
    assert variant_of(layout("fast_vit", fused), shapes, name) == name


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", MOBILE_ONE)
def test_mobile_one(name: str, fused: bool) -> None:
    shapes = mobile_one_shapes(MobileOneConfig.from_variant(name), fused)
    assert variant_of(layout("mobile_one", fused), shapes) == name


def test_another_mlp_ratio_is_another_variant() -> None:
    t12 = fast_vit_shapes(FastVLMConfig.from_variant("fastvit_t12"), False)
    with pytest.raises(CheckpointError, match="of fastvit_t12 .*mlp ratio 3.*mlp ratio 4"):
        variant_of(layout("fast_vit", False), t12, "fastvit_s12")


def test_a_cut_off_stage_is_no_variant() -> None:
    shapes = fast_vit_shapes(FastVLMConfig.from_variant("fastvit_t8"), False)
    shapes = {n: s for n, s in shapes.items() if "stages.3" not in n}
    with pytest.raises(CheckpointError, match=r"no known variant.*\[48, 96, 192\]"):
        variant_of(layout("fast_vit", False), shapes)
    with pytest.raises(CheckpointError, match="no blocks"):
        variant_of(layout("fast_vit", False), {"stem.0.conv_scale.conv.weight": (48, 3, 1, 1)})
    with pytest.raises(CheckpointError, match="lack"):
        variant_of(layout("mobile_one", True), {"stem.reparam_conv.weight": (48, 3, 3, 3)})
