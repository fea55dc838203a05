"""What JAX computes best on a CPU by functions of its own: products in bfloat16.

XLA widens both factors of a product whose result is bfloat16, kernels included, every time. A
product that keeps its sums in float32 goes to instructions for bfloat16 where the processor has
them (AVX-512 BF16), twice as fast as float32, as long as it has two rows; a single row is
multiplied twice over. The sums are rounded once, after bias and GELU.
"""

from __future__ import annotations

import math

import keras
from keras import ops

from dl_techniques.kernels.machine import multiplies_bfloat16
from dl_techniques.kernels.reference import gelu
from dl_techniques.kernels.reference import grouped_attention as plain_grouped_attention
from dl_techniques.typing import Tensor


def is_half(x: Tensor) -> bool:
    """Whether an array is of bfloat16."""
    return bool(keras.backend.standardize_dtype(x.dtype) == "bfloat16")


def jax_dense(
    x: Tensor, kernel: Tensor, bias: Tensor | None = None, with_gelu: bool = False
) -> Tensor:
    """A dense layer and, if wanted, its GELU, with sums in float32.

    Args:
        x: bfloat16[..., K].
        kernel: bfloat16[K, N].
        bias: bfloat16[N] or None.
        with_gelu: whether the exact GELU follows.

    Returns:
        bfloat16[..., N].
    """
    import jax

    alone = math.prod(x.shape[:-1]) == 1
    rows = ops.broadcast_to(ops.reshape(x, (1, -1)), (2, x.shape[-1])) if alone else x
    sums = jax.lax.dot_general(
        rows, kernel, (((rows.ndim - 1,), (0,)), ((), ())), preferred_element_type="float32"
    )
    sums = ops.reshape(sums[:1], (*x.shape[:-1], -1)) if alone else sums
    sums = sums if bias is None else sums + ops.cast(bias, "float32")
    return ops.cast(gelu(sums) if with_gelu else sums, x.dtype)


def jax_to_vocabulary(x: Tensor, table: Tensor) -> Tensor:
    """Logits of an embedding: bfloat16[..., D] times the transposed bfloat16[V, D] -> [..., V].

    A single row is multiplied with each row of the table and summed: a product of matrices would
    transpose or widen the whole table for every token.
    """
    if math.prod(x.shape[:-1]) > 1:
        return jax_dense(x, ops.transpose(table))
    row = ops.cast(ops.reshape(x, (1, -1)), "float32")
    sums = ops.sum(ops.cast(table, "float32") * row, axis=1)
    return ops.reshape(ops.cast(sums, x.dtype), (*x.shape[:-1], -1))


def matmul_in_float32(left: Tensor, right: Tensor) -> Tensor:
    """`ops.matmul` whose sums of bfloat16 stay in float32 where that is faster.

    Args:
        left: float[..., M, K].
        right: float[..., K, N].

    Returns:
        float[..., M, N]: float32 there, elsewhere of the dtype that `ops.matmul` gives.
    """
    if not (is_half(left) and is_half(right)) or not multiplies_bfloat16():
        return ops.matmul(left, right)
    import jax.numpy

    return jax.numpy.matmul(left, right, preferred_element_type="float32")


def attention_by_heads(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention with the heads in front, whose products are faster so.

    1024 places, 24 heads of 32: 84 ms on one core, where `jax.nn.dot_product_attention` takes 230.

    Args:
        q: float[B, N, heads, D].
        k: float[B, M, heads, D].
        v: float[B, M, heads, D].
        mask: None.

    Returns:
        float[B, N, heads, D].
    """
    q, k, v = (ops.transpose(x, (0, 2, 1, 3)) for x in (q, k, v))
    scores = matmul_in_float32(q * q.shape[-1] ** -0.5, ops.transpose(k, (0, 1, 3, 2)))
    weights = ops.softmax(ops.cast(scores, "float32"), axis=-1)
    attended = matmul_in_float32(ops.cast(weights, v.dtype), v)
    return ops.transpose(ops.cast(attended, v.dtype), (0, 2, 1, 3))


def grouped_attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """The reference, with sums of bfloat16 in float32."""
    return plain_grouped_attention(query, keys, values, mask, matmul_in_float32)
