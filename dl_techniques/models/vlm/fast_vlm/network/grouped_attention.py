"""Layers of Qwen, Qwen3 and Llama over a cache, with grouped queries left grouped.

KerasHub's attention repeats keys and values until every query has its own, stacks both into a new
cache, and makes mask and rotary angles anew in every layer. Over the same weights, the functions
here attend with all queries of a group at once, keep keys and values apart (so that writing a row
changes nothing else), and make mask and angles once for all layers.

Reference: grouped-query attention, Ainslie et al., arXiv:2305.13245.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
from keras import ops

from dl_techniques import kernels
from dl_techniques.compat import keras_hub_decoders as parts
from dl_techniques.layers.dense import project, project_each
from dl_techniques.typing import Tensor

PairCache = tuple[Tensor, Tensor]
Rotate = Callable[[Tensor], Tensor]
Write = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""A cache and new rows -> the new cache, and what of it is attended to."""
HIDDEN = kernels.HIDDEN


def forward_layers(
    layers: Sequence[keras.layers.Layer],
    x: Tensor,
    caches: Sequence[PairCache],
    index: Tensor | int,
    slot_mask: Tensor,
) -> tuple[Tensor, tuple[PairCache, ...]]:
    """All decoder layers over new positions, in inference.

    Args:
        layers: of a Qwen, Qwen3 or Llama backbone, built, without a sliding window.
        x: float[B, L, D]. Embeddings of the slots `index .. index + L`.
        caches: (keys, values) of each layer, float[B, S, H, size] both.
        index: scalar int, the first slot that is written.
        slot_mask: bool[B, S]. False where a slot holds padding.

    Returns:
        float[B, L, D], and the new caches.
    """
    first, length, size = parts.attention_of(layers[0]), x.shape[1], caches[0][0].shape[3]
    visible = _visible(slot_mask, index, length)
    rotate, write = _rotation(first, length, size, index), _writing(index, length)
    return _forward(layers, x, caches, visible, rotate, write)


def forward_rows(
    layers: Sequence[keras.layers.Layer],
    x: Tensor,
    caches: Sequence[PairCache],
    rows: Tensor | None,
    positions: Tensor,
    slots: Tensor,
) -> tuple[Tensor, tuple[PairCache, ...]]:
    """All decoder layers over new positions, every row at a place of its own, in inference.

    Args:
        layers: as `forward_layers`.
        x: float[B, L, D]. Embeddings of the new positions.
        caches: (keys, values) of each layer, float[R, S, H, size] both; may be overwritten. Slot i
            of a row holds its position i.
        rows: int[B], the rows of the cache; None for all of them, in order (B = R).
        positions: int[B, L]. A position sees the slots up to its own.
        slots: int[B, L]. Where keys and values are written: `positions`, or a slot that no position
            sees.

    Returns:
        float[B, L, D], and the new caches.
    """
    first, length, size = parts.attention_of(layers[0]), x.shape[1], caches[0][0].shape[3]
    places = ops.arange(caches[0][0].shape[1], dtype="int32")
    visible = places[None, None] <= ops.cast(positions, "int32")[:, :, None]
    every = ops.arange(caches[0][0].shape[0], dtype="int32")
    chosen = every if rows is None else rows

    def write(cache: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        cache = kernels.write_slots(cache, chosen, slots, new)
        return cache, cache if rows is None else ops.take(cache, rows, axis=0)

    rotate = _rotation(first, length, size, positions=positions)
    return _forward(layers, x, caches, visible, rotate, write)


def _forward(
    layers: Sequence[keras.layers.Layer],
    x: Tensor,
    caches: Sequence[PairCache],
    visible: Tensor,
    rotate: Rotate,
    write: Write,
) -> tuple[Tensor, tuple[PairCache, ...]]:
    """All layers: what is visible bool[B, L, S], how to rotate and to write is the same for all."""
    x = ops.cast(x, layers[0].compute_dtype)
    mask = kernels.attention_mask(visible, parts.attention_of(layers[0]).compute_dtype)
    new = []
    for layer, cache in zip(layers, caches, strict=True):
        hidden = _normalize(parts.attention_norm(layer), x)
        attended, cache = _attend(parts.attention_of(layer), hidden, cache, mask, rotate, write)
        x = x + attended
        x = x + _feed_forward(layer, _normalize(parts.feed_forward_norm(layer), x))
        new.append(cache)
    return x, tuple(new)


def grouped_attention(query: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    """Attention of H * G queries over H keys and values; query h attends to key `h // G`.

    Args:
        query: float[B, L, H * G, size].
        keys: float[B, S, H, size].
        values: float[B, S, H, size].
        visible: bool[B, L, S].

    Returns:
        float[B, L, H * G, size].

    Example:
        >>> import numpy as np
        >>> x = np.ones((1, 3, 4, 2), "float32")
        >>> out = grouped_attention(x, x[:, :, :2], x[:, :, :2], np.ones((1, 3, 3), bool))
        >>> tuple(out.shape)
        (1, 3, 4, 2)
    """
    mask = kernels.attention_mask(visible, keras.backend.standardize_dtype(query.dtype))
    return kernels.grouped_attention(query, keys, values, mask)


def _visible(slot_mask: Tensor, index: Tensor | int, length: int) -> Tensor:
    """bool[B, L, S]: slots that hold a token, and not one that comes later."""
    slots = ops.arange(slot_mask.shape[1], dtype="int32")
    places = ops.cast(index, "int32") + ops.arange(length, dtype="int32")
    causal = slots[None, :] <= places[:, None]
    return ops.logical_and(causal[None], ops.cast(slot_mask, "bool")[:, None, :])


def _rotation(
    attention: keras.layers.Layer,
    length: int,
    size: int,
    index: Tensor | int = 0,
    positions: Tensor | None = None,
) -> Rotate:
    """Rotary embedding of the new positions, float[B, L, H, size], with angles for all layers."""
    like = ops.zeros((1, length, 1, size), attention.compute_dtype)
    rotary = attention.rotary_embedding_layer
    cosines, sines = parts.cosines_and_sines(rotary, like, index, positions)
    half = size // 2
    signed = ops.concatenate([-sines[..., :half], sines[..., half:]], axis=-1)
    return lambda x: kernels.rotate(x, cosines, signed)


def _writing(index: Tensor | int, length: int) -> Write:
    """Writes rows float[B, L, H, size] into the slots `index .. index + L` of a cache."""
    places = kernels.row_places(index, length)

    def write(cache: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        cache = kernels.write_rows(cache, places, rows)
        return cache, cache

    return write


def _normalize(norm: keras.layers.Layer, x: Tensor) -> Tensor:
    """A decoder's RMS normalization: float[B, L, D], same shape."""
    return kernels.rms_norm(x, ops.cast(norm.scale, norm.compute_dtype), norm.epsilon)


def _attend(
    attention: keras.layers.Layer,
    hidden: Tensor,
    cache: PairCache,
    mask: Tensor,
    rotate: Rotate,
    write: Write,
) -> tuple[Tensor, PairCache]:
    """One attention layer: float[B, L, D] -> float[B, L, D], and the cache with its new rows."""
    query, key, values = project_each(parts.query_key_value(attention), hidden)
    norms = parts.query_key_norms(attention)
    if norms is not None:
        query, key = norms[0](query), norms[1](key)
    query, key = rotate(query), rotate(key)
    new_keys, keys = write(cache[0], ops.cast(key, cache[0].dtype))
    new_values, values = write(cache[1], ops.cast(values, cache[1].dtype))
    mixed = kernels.grouped_attention(query, keys, values, mask)
    return project(parts.attention_output(attention), mixed), (new_keys, new_values)


def _feed_forward(layer: keras.layers.Layer, hidden: Tensor) -> Tensor:
    """The gated feed-forward part; its activation runs in float32, as in KerasHub."""
    gate, inner = project_each(parts.gate_and_inner(layer), hidden)
    if layer.activation in (ops.silu, keras.activations.silu):
        gate = kernels.silu(gate)
    else:
        gate = ops.cast(layer.activation(ops.cast(gate, "float32")), layer.compute_dtype)
    return project(parts.feed_forward_output(layer), inner * gate)
