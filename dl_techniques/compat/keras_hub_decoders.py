"""The parts of KerasHub's decoder layers of the Qwen, Qwen3 and Llama kind.

Needed for every answer: `network.grouped_attention` computes over their weights.
"""

from __future__ import annotations

from typing import Any

from dl_techniques.typing import Tensor

Layer = Any


def attention_of(layer: Layer) -> Layer:
    """The attention of a decoder layer."""
    return layer._self_attention_layer


def attention_norm(layer: Layer) -> Layer:
    """The norm before the attention."""
    return layer._self_attention_layernorm


def feed_forward_norm(layer: Layer) -> Layer:
    """The norm before the feed-forward part."""
    return layer._feedforward_layernorm


def query_key_value(attention: Layer) -> tuple[Layer, Layer, Layer]:
    """The dense layers that make queries, keys and values."""
    return attention._query_dense, attention._key_dense, attention._value_dense


def query_key_norms(attention: Layer) -> tuple[Layer, Layer] | None:
    """The norms of queries and keys (Qwen3), or None."""
    if not hasattr(attention, "_query_dense_layer_norm"):
        return None
    return attention._query_dense_layer_norm, attention._key_dense_layer_norm


def attention_output(attention: Layer) -> Layer:
    """The dense layer behind the attention."""
    return attention._output_dense


def gate_and_inner(layer: Layer) -> tuple[Layer, Layer]:
    """The two dense layers of the gated feed-forward part."""
    return layer._feedforward_gate_dense, layer._feedforward_intermediate_dense


def feed_forward_output(layer: Layer) -> Layer:
    """The dense layer behind them."""
    return layer._feedforward_output_dense


def cosines_and_sines(
    rotary: Layer, like: Tensor, index: Tensor | int = 0, positions: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The angles of a rotary embedding.

    Args:
        rotary: `keras_hub.layers.RotaryEmbedding`.
        like: float[1, L, 1, size], for its shape.
        index: scalar int, the first position, where they follow each other.
        positions: int[B, L], where every row has its own.

    Returns:
        float[1, L, 1, size] or float[B, L, 1, size] twice; both halves hold the same angles.
    """
    cosines, sines = rotary._compute_cos_sin_embedding(like, start_index=index, positions=positions)
    return cosines, sines
