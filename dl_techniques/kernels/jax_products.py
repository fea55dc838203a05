"""What JAX computes best on a CPU by functions of its own: products in bfloat16.

XLA widens both factors of a product whose result is bfloat16, kernels included, every time. A
product that keeps its sums in float32 goes to instructions for bfloat16 where the processor has
them (AVX-512 BF16), twice as fast as float32, as long as it has two rows; a single row is
multiplied twice over. The sums are rounded once, after bias and GELU.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import keras
from keras import ops

from dl_techniques.kernels.jax_depthwise import prefers_shifts
from dl_techniques.layers.activations import gelu

Tensor = Any
CPU_FLAGS = Path("/proc/cpuinfo")


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether this process is JAX on a CPU with instructions for bfloat16 (Linux tells)."""
    if not prefers_shifts() or not CPU_FLAGS.is_file():
        return False
    return bool({"avx512_bf16", "amx_bf16"}.intersection(CPU_FLAGS.read_text().split()))


def takes_bfloat16(layer: keras.layers.Layer) -> bool:
    """Whether a layer's product is one of `jax_dense`."""
    return bool(layer.compute_dtype == "bfloat16") and multiplies_bfloat16()


def jax_dense(x: Tensor, kernel: Tensor, bias: Tensor = None, with_gelu: bool = False) -> Tensor:
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
    """Logits of an embedding: bfloat16[..., D] times the turned bfloat16[V, D] -> [..., V].

    A single row is multiplied with each row of the table and summed: a product of matrices would
    turn or widen the whole table for every token.
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
    half = all(keras.backend.standardize_dtype(x.dtype) == "bfloat16" for x in (left, right))
    if not half or not multiplies_bfloat16():
        return ops.matmul(left, right)
    import jax.numpy

    return jax.numpy.matmul(left, right, preferred_element_type="float32")
