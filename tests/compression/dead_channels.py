"""Networks in which a known half of the channels computes nothing, written layer by layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from dl_techniques.models.vision.fast_vlm.components import AttentionBlock
from tests.helpers import Array, numbers
from tests.models.vision.fast_vlm.small_network import make_network

Alive = dict[str, Array]


def make_half_dead_network(seed: int = 5, **options: Any) -> tuple[Any, Alive]:
    """A branched network with random weights, and bool[channels] for each set: what lives.

    A dead channel is exactly zero wherever it is read; what would read it stays random.
    """
    network = make_network(**options)
    rng = np.random.default_rng(seed)
    alive: Alive = {"stem": half(rng, 8)}
    _silence_block(network.stem.blocks[0], ~alive["stem"])
    _silence_block(network.stem.blocks[1], ~alive["stem"])
    alive["width_0"] = half(rng, 8)
    _silence_block(network.stem.blocks[2], ~alive["width_0"])
    for i, stage in enumerate(network.stages):
        if i:
            alive[f"width_{i}"] = half(rng, 8 * 2**i)
            _silence_downsample(network.downsample_layers[i - 1], i, alive, rng)
        _silence_stage(stage, i, alive, rng)
    if network.tail is not None:
        children = np.repeat(alive[f"width_{len(network.stages) - 1}"], network.tail.filters // 32)
        _silence_block(network.tail, ~children)
        _silence_squeeze(network.tail.se, alive, "squeeze_tail", rng)
    return network, alive


def make_one_stage_network(**options: Any) -> Any:
    """One RepMixer block: for what compiles a whole step of training."""
    stage = {"embed_dims": (8,), "depths": (1,), "num_heads": (1,), "mixers": ("repmixer",)}
    return make_network(**{**stage, **options})


def half(rng: np.random.Generator, channels: int) -> Array:
    """bool[channels] with one half true, at random places."""
    return rng.permutation(np.arange(channels) % 2 == 0)


def silence(variable: Any, dead: Array, axis: int = -1) -> None:
    """Sets the dead places along an axis to zero."""
    shape = [1] * len(variable.shape)
    shape[axis] = -1
    variable.assign((numbers(variable) * (~dead).reshape(shape)).astype("float32"))


def _silence_norm(norm: Any, dead: Array) -> None:
    silence(norm.gamma, dead)
    silence(norm.beta, dead)


def _silence_block(block: Any, dead: Array) -> None:
    """All branches of a MobileOne block end in a norm."""
    for name in block.form_parts(False):
        part = getattr(block, name)
        _silence_norm(part if name == "identity" else part.norm, dead)


def _silence_squeeze(layer: Any, alive: Alive, label: str, rng: np.random.Generator) -> None:
    alive[label] = half(rng, layer.reduce.units)
    silence(layer.reduce.kernel, ~alive[label])
    silence(layer.reduce.bias, ~alive[label])


def _silence_downsample(layer: Any, i: int, alive: Alive, rng: np.random.Generator) -> None:
    children = np.repeat(alive[f"width_{i - 1}"], 2)
    _silence_norm(layer.large_kernel.large_conv.norm, ~children)
    _silence_norm(layer.large_kernel.small_conv.norm, ~children)
    if layer.large_kernel.se is not None:
        _silence_squeeze(layer.large_kernel.se, alive, f"squeeze_{i}", rng)
    _silence_block(layer.pointwise, ~alive[f"width_{i}"])


def _silence_stage(stage: Any, i: int, alive: Alive, rng: np.random.Generator) -> None:
    dead = ~alive[f"width_{i}"]
    if stage.position is not None:
        silence(stage.position.conv.bias, dead)
    for b, block in enumerate(stage.blocks):
        hidden = alive[f"hidden_{i}_{b}"] = half(rng, block.conv_ffn.hidden_dim)
        _silence_norm(block.conv_ffn.conv.norm, dead)
        silence(block.conv_ffn.fc1.kernel, ~hidden)
        silence(block.conv_ffn.fc1.bias, ~hidden)
        silence(block.layer_scale.gamma, dead)
        if isinstance(block, AttentionBlock):
            _silence_heads(block, f"{i}_{b}", dead, alive, rng)
        else:
            silence(block.token_mixer.layer_scale.gamma, dead)


def _silence_heads(
    block: Any, place: str, dead: Array, alive: Alive, rng: np.random.Generator
) -> None:
    """A head is silent when its values are."""
    heads = half(rng, block.num_heads)
    channels = np.repeat(heads, len(dead) // len(heads))
    alive[f"attention_{place}"] = channels
    everything = np.ones(2 * len(dead), bool)
    silence(block.attention.qkv.kernel, ~np.concatenate([everything, channels]))
    silence(block.attention_scale.gamma, dead)
    _silence_norm(block.norm, dead)
