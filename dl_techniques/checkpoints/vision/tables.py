"""Tables between our variables and the names that timm and Apple give the same arrays.

Both families say the same things in other words, so the words stand in a `Words`, and each kind of
block has one function that writes its lines. `timm_rules()` and `apple_rules(config)` put the lines
of a whole FastViT together, `mobile_one_rules` those of a MobileOne; branched and fused parts stand
in one table, since a variable's own path says which form it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dl_techniques.checkpoints.weight_map import (
    CHANNELS,
    CONV,
    DENSE,
    DEPTHWISE,
    POINTWISE,
    Derive,
    Rule,
    Transform,
)
from dl_techniques.models.vision.fast_vlm.config import FastVLMConfig

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Words:
    """What one family calls the parts of a block."""

    conv: str
    scale: str
    identity: str
    se: tuple[str, str]
    large_conv: str
    large_fused: str
    feed_forward: str
    gamma: str


TIMM = Words(
    conv="conv_kxk",
    scale="conv_scale",
    identity="identity",
    se=("se.fc1", "se.fc2"),
    large_conv="large_conv",
    large_fused="reparam_conv",
    feed_forward="mlp",
    gamma=".gamma",
)
APPLE = Words(
    conv="rbr_conv",
    scale="rbr_scale",
    identity="rbr_skip",
    se=("se.reduce", "se.expand"),
    large_conv="lkb_origin",
    large_fused="lkb_reparam",
    feed_forward="convffn",
    gamma="",
)
TIMM_MOBILE_ONE = Words(**{**vars(TIMM), "se": ("attn.fc1", "attn.fc2")})


def norm(target: str, source: str) -> list[Rule]:
    """A BatchNorm, or the two arrays of a LayerNorm."""
    return [
        Rule(f"{target}/gamma", f"{source}.weight"),
        Rule(f"{target}/beta", f"{source}.bias"),
        Rule(f"{target}/moving_mean", f"{source}.running_mean"),
        Rule(f"{target}/moving_variance", f"{source}.running_var"),
    ]


def linear(target: str, source: str, transform: Transform) -> list[Rule]:
    """Kernel and bias of a convolution or dense layer."""
    return [
        Rule(f"{target}/kernel", f"{source}.weight", transform),
        Rule(f"{target}/bias", f"{source}.bias"),
    ]


def conv_norm(target: str, source: str, transform: Transform) -> list[Rule]:
    """A convolution without bias and its BatchNorm."""
    kernel = Rule(f"{target}/conv/kernel", f"{source}.conv.weight", transform)
    return [kernel, *norm(f"{target}/norm", f"{source}.bn")]


def squeeze(target: str, source: str, names: tuple[str, str]) -> list[Rule]:
    """Squeeze-and-excitation, whose dense layers others write as 1x1 convolutions."""
    return [
        *linear(f"{target}/reduce", f"{source}.{names[0]}", POINTWISE),
        *linear(f"{target}/expand", f"{source}.{names[1]}", POINTWISE),
    ]


def mobile_one(target: str, source: str, transform: Transform, words: Words) -> list[Rule]:
    """A `MobileOneBlock` in either form."""
    return [
        *conv_norm(f"{target}/conv_{{branch}}", f"{source}.{words.conv}.{{branch}}", transform),
        *conv_norm(f"{target}/scale", f"{source}.{words.scale}", transform),
        *norm(f"{target}/identity", f"{source}.{words.identity}"),
        *linear(f"{target}/fused_conv", f"{source}.reparam_conv", transform),
        *squeeze(f"{target}/se", source, words.se),
    ]


def large_kernel(target: str, source: str, words: Words) -> list[Rule]:
    """A `LargeKernelConv` in either form. Apple takes its SE from timm, hence one pair of names."""
    return [
        *conv_norm(f"{target}/large_conv", f"{source}.{words.large_conv}", DEPTHWISE),
        *conv_norm(f"{target}/small_conv", f"{source}.small_conv", DEPTHWISE),
        *linear(f"{target}/fused_conv", f"{source}.{words.large_fused}", DEPTHWISE),
        *squeeze(f"{target}/se", source, TIMM.se),
    ]


def downsample(target: str, source: str, words: Words) -> list[Rule]:
    """A `PatchEmbedding`."""
    return [
        *large_kernel(f"{target}/large_kernel", f"{source}.0", words),
        *mobile_one(f"{target}/pointwise", f"{source}.1", CONV, words),
    ]


def block(target: str, source: str, words: Words) -> list[Rule]:
    """A `RepMixerBlock` or an `AttentionBlock`; paths of the two never meet."""
    ffn, mixer = f"{source}.{words.feed_forward}", f"{source}.token_mixer"
    return [
        *mobile_one(f"{target}/token_mixer/mixer", f"{mixer}.mixer", DEPTHWISE, words),
        *mobile_one(f"{target}/token_mixer/norm", f"{mixer}.norm", DEPTHWISE, words),
        *linear(f"{target}/token_mixer/fused_conv", f"{mixer}.reparam_conv", DEPTHWISE),
        Rule(
            f"{target}/token_mixer/layer_scale/gamma",
            f"{mixer}.layer_scale{words.gamma}",
            CHANNELS,
        ),
        *norm(f"{target}/norm", f"{source}.norm"),
        *linear(f"{target}/attention/qkv", f"{mixer}.qkv", DENSE),
        *linear(f"{target}/attention/proj", f"{mixer}.proj", DENSE),
        *conv_norm(f"{target}/conv_ffn/conv", f"{ffn}.conv", DEPTHWISE),
        *linear(f"{target}/conv_ffn/fc1", f"{ffn}.fc1", POINTWISE),
        *linear(f"{target}/conv_ffn/fc2", f"{ffn}.fc2", POINTWISE),
    ]


def layer_scales(target: str, source: str, mixer: str, words: Words) -> list[Rule]:
    """The scales of a block's branches; a RepMixer block has one beside its mixer's."""
    if mixer == "repmixer":
        return [Rule(f"{target}/layer_scale/gamma", f"{source}.layer_scale{words.gamma}", CHANNELS)]
    return [
        Rule(f"{target}/attention_scale/gamma", f"{source}.layer_scale_1{words.gamma}", CHANNELS),
        Rule(f"{target}/layer_scale/gamma", f"{source}.layer_scale_2{words.gamma}", CHANNELS),
    ]


def fast_vit_rules(config: FastVLMConfig, layout: str) -> list[Rule]:
    """The table of one network of the family.

    Args:
        config: its stages; Apple's flat numbering depends on them, and so does the name of a scale.
        layout: "timm" or "apple".
    """
    words = TIMM if layout == "timm" else APPLE
    stem = "stem" if layout == "timm" else "patch_embed"
    tail = "final_conv" if layout == "timm" else "conv_exp"
    rules = [
        *mobile_one("stem/block_0", f"{stem}.0", CONV, words),
        *mobile_one("stem/block_1", f"{stem}.1", DEPTHWISE, words),
        *mobile_one("stem/block_2", f"{stem}.2", CONV, words),
    ]
    for stage, places in enumerate(_places(config, layout)):
        ours = f"stage_{stage + 1}"
        blocks = f"{ours}/block_{{b}}"
        rules += downsample(f"downsample_{stage}", f"{places.downsample}.proj", words)
        rules += linear(f"{ours}/position/conv", places.position, DEPTHWISE)
        rules += linear(f"{ours}/position/fused_conv", places.position_fused, DEPTHWISE)
        rules += block(blocks, f"{places.blocks}.{{b}}", words)
        rules += layer_scales(blocks, f"{places.blocks}.{{b}}", config.stage_mixers[stage], words)
    rules += mobile_one("tail", tail, DEPTHWISE, words)
    return rules + head_rules("head.fc" if layout == "timm" else "head")


def head_rules(source: str) -> list[Rule]:
    """The classifier."""
    return linear("head", source, DENSE)


@dataclass(frozen=True)
class Places:
    """Where a layout keeps the parts of a stage."""

    downsample: str
    position: str
    position_fused: str
    blocks: str


def _places(config: FastVLMConfig, layout: str) -> list[Places]:
    if layout == "timm":
        return [
            Places(
                downsample=f"stages.{stage}.downsample",
                position=f"stages.{stage}.pos_emb.pos_enc",
                position_fused=f"stages.{stage}.pos_emb.reparam_conv",
                blocks=f"stages.{stage}.blocks",
            )
            for stage in range(len(config.depths))
        ]
    return list(_flat_places(config))


def _flat_places(config: FastVLMConfig) -> Iterable[Places]:
    """Apple's one list of downsamples, positions and stages; a fused position has no sub-name."""
    index = 0
    for stage in range(len(config.depths)):
        down = index
        index += int(stage > 0)
        position = index
        index += int(config.has_position(stage))
        yield Places(
            downsample=f"network.{down}",
            position=f"network.{position}.pe",
            position_fused=f"network.{position}.reparam_conv",
            blocks=f"network.{index}",
        )
        index += 1


def mobile_one_rules(layout: str) -> tuple[list[Rule], Derive]:
    """The table of a MobileOne, and the fields that it computes.

    Args:
        layout: "timm" or "apple".
    """
    if layout == "timm":
        words, stem, stage, head = TIMM_MOBILE_ONE, "stem", "stages.{from_zero}.{i}", "head.fc"
    else:
        words, stem, stage, head = APPLE, "stage0", "stage{s}.{i}", "linear"
    depthwise, dense = "stage_{s}/depthwise_{p}", "stage_{s}/pointwise_{p}"
    rules = [
        *mobile_one("stem", stem, CONV, words),
        *mobile_one(depthwise, stage.replace("{i}", "{even}"), DEPTHWISE, words),
        *mobile_one(dense, stage.replace("{i}", "{odd}"), CONV, words),
        *head_rules(head),
    ]
    return rules, _pairs


def _pairs(fields: dict[str, str]) -> dict[str, str]:
    """Stages from 0, and both places of a pair of blocks."""
    if "p" not in fields:
        return {}
    pair = int(fields["p"])
    return {
        "from_zero": str(int(fields["s"]) - 1),
        "even": str(2 * pair),
        "odd": str(2 * pair + 1),
    }


def relative_paths(model: keras.Model) -> list[tuple[str, Any]]:
    """(path below the model, variable) pairs; random generators' states are none of a file's.

    The networks that a part stands in have their names in front; the part's own name is where the
    path begins.
    """
    found = []
    for part in model.layers:
        for variable in part.weights:
            path = f"/{variable.path}"
            if variable.name != "seed_generator_state":
                found.append((path[path.rindex(f"/{part.name}/") + 1 :], variable))
    return found
