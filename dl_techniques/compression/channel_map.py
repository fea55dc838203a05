"""Which axis of which weight belongs to which set of channels of a FastVLM.

Channels that are added to each other, or that a depthwise layer hands on, live and die together:
they form one set, named here. A network in any form (branched, fused, folded) has the same sets.

| set | channels |
|---|---|
| `stem` | inside the stem, before its last (1x1) block |
| `width_i` | the residual stream of stage i: everything that reads it or is added to it |
| `patch_i` | inside the downsample before stage i; m of them for each channel of `width_{i-1}` |
| `hidden_i_b` | between the two dense layers of block b's ConvFFN |
| `attention_i_b`, `qkv_i_b` | the heads' channels, and the same three times |
| `squeeze_i`, `squeeze_tail` | bottlenecks of squeeze-and-excitation |
| `tail` | after the tail convolution; `tail_expansion` for each channel of the last stage |

Reference: Fang et al., "DepGraph: Towards Any Structural Pruning", arXiv:2301.12900.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from dl_techniques.errors import CompressionError
from dl_techniques.models.picture_network import StagedNetwork
from dl_techniques.models.vision.fast_vlm.components import AttentionBlock
from dl_techniques.models.vision.fast_vlm.model import FastVLM

if TYPE_CHECKING:
    import keras

Label = str | None


class Bound(NamedTuple):
    """A weight and the channel set of each of its axes; `None` where an axis has none."""

    variable: Any
    axes: tuple[Label, ...]


class Shortcut(NamedTuple):
    """A BatchNorm that hands channel c of one set to channel c of another."""

    norm: Any
    source: str
    target: str


def channel_axes(model: FastVLM) -> list[Bound]:
    """Every weight of a network with the channel sets of its axes.

    Args:
        model: in any form.

    Returns:
        One entry a weight. Two networks of the same structure and form give the same order.

    Raises:
        CompressionError: no FastVLM, or with weights that one does not have, e.g. quantized ones.

    Example:
        >>> entry = channel_axes(FastVLM.from_variant("nano"))[-2]
        >>> tuple(entry.variable.shape), entry.axes
        ((96, 1000), ('width_2', None))
    """
    if not isinstance(model, StagedNetwork):
        raise CompressionError(
            f"channels of a {type(model).__name__} cannot be pruned; give a FastVLM (of a "
            "vision-language model: its backbone.vision_encoder)"
        )
    found = [*_stem(model.stem)]
    for i, stage in enumerate(model.stages):
        if i:
            found += _downsample(model.downsample_layers[i - 1], i)
        found += _stage(stage, i)
    last = f"width_{len(model.stages) - 1}"
    if model.tail is not None:
        found += _mobile_one(model.tail, last, "tail", "squeeze_tail")
        last = "tail"
    for layer in model.head:
        if layer.weights:
            found += _dense(layer, last, None)
    if {id(b.variable) for b in found} != {id(v) for v in model.weights}:
        raise CompressionError(
            f"{model.name} has weights that no FastVLM has, e.g. quantized ones; "
            "prune first and quantize afterwards"
        )
    return found


def shortcuts(model: FastVLM) -> list[Shortcut]:
    """The identity branches between two different channel sets; none in a fused network."""
    blocks = [(model.stem.blocks[2], "stem", "width_0")]
    for i, layer in enumerate(model.downsample_layers, 1):
        blocks.append((layer.pointwise, f"patch_{i}", f"width_{i}"))
    return [
        Shortcut(block.identity, source, target)
        for block, source, target in blocks
        if "identity" in block.form_parts(block.inference_form)
    ]


def _stem(stem: Any) -> Iterator[Bound]:
    yield from _mobile_one(stem.blocks[0], None, "stem")
    yield from _mobile_one(stem.blocks[1], "stem", "stem")
    yield from _mobile_one(stem.blocks[2], "stem", "width_0")


def _downsample(layer: keras.layers.Layer, i: int) -> Iterator[Bound]:
    large, before, inside = layer.large_kernel, f"width_{i - 1}", f"patch_{i}"
    if large.inference_form:
        yield from _conv(large.fused_conv, before, inside, True)
    else:
        yield from _conv_norm(large.large_conv, before, inside)
        yield from _conv_norm(large.small_conv, before, inside)
    if large.se is not None:
        yield from _squeeze(large.se, inside, f"squeeze_{i}")
    yield from _mobile_one(layer.pointwise, inside, f"width_{i}")


def _stage(stage: Any, i: int) -> Iterator[Bound]:
    width = f"width_{i}"
    if stage.position is not None:
        name = stage.position.form_parts(stage.position.inference_form)[0]
        yield from _conv(getattr(stage.position, name), width, width, True)
    for b, block in enumerate(stage.blocks):
        if isinstance(block, AttentionBlock):
            yield from _attention(block, width, f"{i}_{b}")
        else:
            yield from _rep_mixer(block.token_mixer, width)
        yield from _conv_ffn(block.conv_ffn, width, f"hidden_{i}_{b}")
        if not block.inference_form:
            yield Bound(block.layer_scale.gamma, (width,))


def _rep_mixer(mixer: Any, width: str) -> Iterator[Bound]:
    if mixer.inference_form:
        yield from _conv(mixer.fused_conv, width, width, True)
        return
    yield from _mobile_one(mixer.mixer, width, width)
    yield from _mobile_one(mixer.norm, width, width)
    yield Bound(mixer.layer_scale.gamma, (width,))


def _attention(block: keras.layers.Layer, width: str, place: str) -> Iterator[Bound]:
    norm = getattr(block, "norm", None)
    if norm is not None:
        yield from _norm(norm, width)
    yield from _dense(block.attention.qkv, width, f"qkv_{place}")
    yield from _dense(block.attention.proj, f"attention_{place}", width)
    if not block.inference_form:
        yield Bound(block.attention_scale.gamma, (width,))


def _conv_ffn(layer: keras.layers.Layer, width: str, hidden: str) -> Iterator[Bound]:
    if layer.inference_form:
        yield from _conv(layer.folded_conv, width, width, True)
    else:
        yield from _conv_norm(layer.conv, width, width)
    yield from _dense(layer.fc1, width, hidden)
    yield from _dense(layer.fc2, hidden, width)


def _mobile_one(
    block: keras.layers.Layer, source: Label, target: str, squeeze: str = ""
) -> Iterator[Bound]:
    if block.inference_form:
        yield from _conv(block.fused_conv, source, target, block.depthwise)
    else:
        for name in block.form_parts(False):
            part = getattr(block, name)
            yield from (
                _norm(part, target) if name == "identity" else _conv_norm(part, source, target)
            )
    if block.se is not None:
        yield from _squeeze(block.se, target, squeeze)


def _squeeze(layer: keras.layers.Layer, channels: str, squeeze: str) -> Iterator[Bound]:
    yield from _dense(layer.reduce, channels, squeeze)
    yield from _dense(layer.expand, squeeze, channels)


def _conv_norm(part: keras.layers.Layer, source: Label, target: str) -> Iterator[Bound]:
    yield from _conv(part.conv, source, target, part.depthwise)
    yield from _norm(part.norm, target)


def _conv(
    layer: keras.layers.Layer, source: Label, target: str, depthwise: bool
) -> Iterator[Bound]:
    yield Bound(layer.kernel, (None, None, source, None if depthwise else target))
    if layer.use_bias:
        yield Bound(layer.bias, (target,))


def _dense(layer: keras.layers.Layer, source: Label, target: Label) -> Iterator[Bound]:
    yield Bound(layer.kernel, (source, target))
    if layer.use_bias:
        yield Bound(layer.bias, (target,))


def _norm(layer: keras.layers.Layer, channels: str) -> Iterator[Bound]:
    return (Bound(variable, (channels,)) for variable in layer.weights)
