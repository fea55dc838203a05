"""Arrays in, arrays out: what a backend computes better than `keras.ops`.

Each kernel is one function with a reference in `keras.ops` and at most one implementation for a
backend; `table.TABLE` says who gets which. No layer and no variable that learns comes in.
`use("reference")`, or `DL_TECHNIQUES_KERNELS=reference` in the environment, turns all of it off.

Example:
    >>> import numpy as np
    >>> x = np.ones((1, 6, 5, 3), "float32")
    >>> tuple(conv(x, np.ones((3, 3, 3, 8), "float32"), stride=2).shape)
    (1, 3, 3, 8)
"""

from __future__ import annotations

import math

import keras
from keras import ops

from dl_techniques.kernels import int8_sums, machine
from dl_techniques.kernels.machine import kind, use
from dl_techniques.kernels.reference import HIDDEN, pad_symmetrically
from dl_techniques.kernels.table import TABLE
from dl_techniques.typing import Tensor

__all__ = [
    "HIDDEN",
    "attention",
    "attention_mask",
    "conv",
    "dense",
    "depthwise_conv",
    "gelu",
    "grouped_attention",
    "int8_matmul",
    "keeps_wide_sums",
    "kind",
    "lay_by_units",
    "matmul",
    "multiplies_integers",
    "pad_symmetrically",
    "prefers_matrices",
    "prefers_transposed_rows",
    "quantize_rows",
    "rescale",
    "rms_norm",
    "rotate",
    "row_places",
    "silu",
    "takes_dense",
    "to_vocabulary",
    "transposed",
    "use",
    "write_rows",
    "write_slots",
]


def conv(x: Tensor, kernel: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """Dense convolution with `k // 2` zeros on each side.

    Args:
        x: float[B, H, W, C].
        kernel: float[k, k, C, F], k odd.
        bias: float[F] or None.
        stride: int. Same stride for both axes. Defaults to 1.

    Returns:
        float[B, ceil(H / stride), ceil(W / stride), F].
    """
    return TABLE["conv"](x, kernel, bias, stride)


def depthwise_conv(
    x: Tensor, kernel: Tensor, bias: Tensor | None = None, stride: int = 1
) -> Tensor:
    """Depthwise convolution with `k // 2` zeros on each side.

    Args:
        x: float[B, H, W, C].
        kernel: float[k, k, C, m], k odd.
        bias: float[C * m] or None.
        stride: int. Same stride for both axes. Defaults to 1.

    Returns:
        float[B, ceil(H / stride), ceil(W / stride), C * m]; channel `c * m + i` is of input `c`.
    """
    return TABLE["depthwise_conv"](x, kernel, bias, stride)


def dense(x: Tensor, kernel: Tensor, bias: Tensor | None = None, with_gelu: bool = False) -> Tensor:
    """A dense layer: float[..., K] times float[K, N] plus float[N] -> float[..., N].

    Args:
        x: the rows.
        kernel: of the same dtype.
        bias: or None.
        with_gelu: whether the exact GELU follows. Defaults to `False`.
    """
    return TABLE["dense"](x, kernel, bias, with_gelu)


def to_vocabulary(x: Tensor, table: Tensor) -> Tensor:
    """Logits of a tied embedding: float[..., D] times float[V, D] transposed -> float[..., V]."""
    return TABLE["to_vocabulary"](x, table)


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """float[..., M, K], float[..., K, N] -> float[..., M, N], which may be wider than its factors.

    Where bfloat16 is multiplied with sums in float32, the sums are what comes back.
    """
    return TABLE["matmul"](left, right)


def gelu(x: Tensor) -> Tensor:
    """The exact GELU: same shape, same dtype."""
    return TABLE["gelu"](x)


def silu(x: Tensor) -> Tensor:
    """SiLU, computed in float32: same shape, same dtype."""
    return TABLE["silu"](x)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Scaled dot-product attention.

    Args:
        q: float[B, N, heads, D].
        k: float[B, M, heads, D].
        v: float[B, M, heads, D].
        mask: bool[B, 1, N or 1, M], or None where all are seen.

    Returns:
        float[B, N, heads, D].
    """
    return TABLE["attention"](q, k, v, mask)


def attention_mask(visible: Tensor, dtype: str) -> Tensor:
    """What `grouped_attention` wants to know of what is visible, once for all layers.

    Args:
        visible: bool[B, L, S].
        dtype: of queries and keys.
    """
    return TABLE["attention_mask"](visible, dtype)


def grouped_attention(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Attention of H * G queries over H keys and values; query h attends to key `h // G`.

    Args:
        query: float[B, L, H * G, size].
        keys: float[B, S, H, size].
        values: float[B, S, H, size].
        mask: of `attention_mask`.

    Returns:
        float[B, L, H * G, size].

    Reference: Ainslie et al., "GQA", arXiv:2305.13245.
    """
    return TABLE["grouped_attention"](query, keys, values, mask)


def rms_norm(x: Tensor, scale: Tensor, epsilon: float) -> Tensor:
    """RMS normalization of the last axis, in float32: same shape, same dtype.

    Args:
        x: float[..., D].
        scale: float[D].
        epsilon: added to the mean square.

    Reference: Zhang and Sennrich, arXiv:1910.07467.
    """
    return TABLE["rms_norm"](x, scale, epsilon)


def rotate(x: Tensor, cosines: Tensor, signed_sines: Tensor) -> Tensor:
    """Rotary embedding: float[B, L, H, size], same shape.

    Args:
        x: queries or keys.
        cosines: float[1, L, 1, size].
        signed_sines: float[1, L, 1, size], the first half negated.

    Reference: Su et al., "RoFormer", arXiv:2104.09864, equation 34.
    """
    return TABLE["rotate"](x, cosines, signed_sines)


def row_places(index: Tensor | int, length: int) -> Tensor | int:
    """What `write_rows` wants to know of the slots `index .. index + length`, for all layers."""
    return TABLE["row_places"](index, length)


def write_rows(cache: Tensor, places: Tensor | int, rows: Tensor) -> Tensor:
    """A cache float[B, S, H, size] with new rows float[B, L, H, size].

    Args:
        cache: what was there.
        places: of `row_places`.
        rows: what comes there.
    """
    return TABLE["write_rows"](cache, places, rows)


def write_slots(cache: Tensor, rows: Tensor, slots: Tensor, new: Tensor) -> Tensor:
    """A cache float[R, S, H, size] with new rows float[B, L, H, size], each at a slot of its own.

    Args:
        cache: what was there; it may be overwritten.
        rows: int[B], the rows of the cache.
        slots: int[B, L]. Where a slot is named twice, any of the two stays.
        new: what comes there.
    """
    return TABLE["write_slots"](cache, rows, slots, new)


def quantize_rows(x: Tensor, value_range: tuple[int, int], epsilon: float) -> tuple[Tensor, Tensor]:
    """Whole numbers and one scale a row: float[rows, K] -> [rows, K], float[rows, 1].

    Args:
        x: the rows.
        value_range: least and largest number.
        epsilon: added to the largest value of a row.

    Returns:
        int8 (or float32 of the same numbers, for a product of floats), and what to divide by.
    """
    numbers, scale = TABLE["quantize_rows"](x, value_range, epsilon)
    return numbers, scale


def int8_matmul(numbers: Tensor, kernel: Tensor, transposed: bool = False) -> Tensor:
    """Rows of `quantize_rows` times a kernel: [M, K], int8[K, N] -> int32 or float32[M, N].

    Args:
        numbers: the rows.
        kernel: int8[K, N], or int8[N, K] where it is transposed.
        transposed: how the kernel lies. Defaults to `False`.
    """
    return TABLE["int8_matmul"](numbers, kernel, transposed)


def rescale(sums: Tensor, divisor: Tensor) -> Tensor:
    """`sums / divisor`; `sums` may be overwritten."""
    return TABLE["rescale"](sums, divisor)


def takes_dense(x: Tensor, dtype: str, trains: bool) -> bool:
    """Whether `dense` is better here than the library's own product, and nothing is learned.

    Args:
        x: what is multiplied.
        dtype: that it is multiplied in.
        trains: whether the kernel or the bias may want a gradient.
    """
    if machine.runs_on_torch():
        tensor = ops.convert_to_tensor(x)
        return tensor.device.type == "cpu" and not machine.may_differentiate(tensor, trains)
    return dtype == "bfloat16" and machine.multiplies_bfloat16()


def multiplies_integers(
    x: Tensor, kernel: Tensor, *, alone: bool, transposed: bool, table: bool, learns: bool
) -> bool:
    """Whether `int8_matmul` is better here than Keras' product of integers.

    Args:
        x: what is quantized and multiplied.
        kernel: int8.
        alone: whether it is a single row.
        transposed: whether the kernel is at hand with its units side by side.
        table: whether the kernel is a whole vocabulary.
        learns: whether a gradient may be wanted.
    """
    if machine.runs_on_torch():
        rows, integers = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
        on_cpu = rows.device.type == "cpu" and integers.device.type == "cpu"
        return on_cpu and not machine.may_differentiate(rows, trains=False)
    if learns or machine.kind() != "fastest" or not machine.runs_on_cpu():
        return False
    if machine.runs_on_jax_cpu():
        return alone and transposed
    # A float copy of a whole vocabulary costs TensorFlow more than it gains.
    return not alone and not table


def keeps_wide_sums() -> bool:
    """Whether `dense` in bfloat16 keeps its sums in float32, and is faster for it."""
    return machine.multiplies_bfloat16()


def prefers_matrices() -> bool:
    """Whether a product with bias and GELU is faster of matrices than of maps.

    TensorFlow's oneDNN computes all three in one go, of matrices alone.
    """
    return machine.runs_on_tensorflow()


def prefers_transposed_rows() -> bool:
    """Whether a single row is faster through a copy of an int8 kernel that is transposed."""
    return machine.runs_on_jax_cpu()


def lay_by_units(kernel: keras.Variable, axes: int) -> bool:
    """Lays an int8 kernel out in memory, in place, where a single row is multiplied faster so.

    Shape and numbers stay, strides change: a unit's weights lie side by side. On processors with
    vector instructions for bytes a row times 896 x 4864 then takes two thirds of the time on
    PyTorch, many rows as long as before.

    Args:
        kernel: of which the first `axes` meet the input.
        axes: how many.

    Returns:
        Whether it lies otherwise than before.
    """
    if not machine.runs_on_torch() or not machine.multiplies_bytes_fast():
        return False
    if int8_sums.lies_by_units(kernel.value, axes):
        return False
    int8_sums.lay_by_units(kernel.value, axes)
    return True


def transposed(kernel: Tensor, axes: int) -> Tensor:
    """int8[..., ...] -> int8[N, K], K being the product of the first `axes` sides."""
    rows = math.prod(kernel.shape[:axes])
    return ops.transpose(ops.reshape(kernel, (rows, -1)))
