"""Depthwise convolution in half precision on JAX's CPU: four outputs in every step of the loop.

XLA's loop over a sum of shifts computes one output at a time. Each multiply-add loads a number of
the map and a tap and waits for the one before it, and the taps of all channels do not fit into the
first cache. Four outputs side by side share most of what they load, and their sums do not wait for
each other. XLA gives a loop one result, so the four are packed into it: two halves into 32 bits,
two of these into a complex number.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from dl_techniques.compat.jax_own import not_inlined

if TYPE_CHECKING:
    from jax import Array as Tensor

_ROWS = 2
_BITS_OF_HALF = 16


def packs(dtype: str, multiplier: int) -> bool:
    """Whether `packed_sum_of_shifts` takes maps of this dtype and kernels of this multiplier."""
    return dtype in ("bfloat16", "float16") and multiplier in (1, 2)


def packed_sum_of_shifts(padded: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """The sum of shifts, "valid", in float32 and rounded once.

    Args:
        padded: bfloat16 or float16[B, H, W, C].
        kernel: float[k, k, C, m], m of 1 or 2.
        stride: int. Same stride for both axes.

    Returns:
        dtype of `padded`, [B, (H - k) // stride + 1, (W - k) // stride + 1, C * m]; channel
        `c * m + i` comes from input `c`.
    """
    from jax import lax

    size, _, _, multiplier = kernel.shape
    columns = 2 // multiplier
    height, width = ((side - size) // stride + 1 for side in padded.shape[1:3])
    tall, wide = -(-height // _ROWS) * _ROWS, -(-width // columns) * columns
    missing = [(0, 0, 0), (0, (tall - height) * stride, 0), (0, (wide - width) * stride, 0)]
    padded = lax.pad(padded, padded.dtype.type(0), [*missing, (0, 0, 0)])
    # A call that is not inlined: else XLA computes all four sums wherever one of them is read.
    with not_inlined():
        packed = _packed_sums()(
            padded.astype("float32"), kernel.astype("float32"), stride, padded.dtype.name
        )
    return _unpacked(packed, padded.dtype, multiplier)[:, :height, :width]


@functools.cache
def _packed_sums() -> Any:
    """`_four_sums` as a call of its own."""
    import jax

    return jax.jit(_four_sums, static_argnums=(2, 3))


def _four_sums(padded: Tensor, taps: Tensor, stride: int, dtype: str) -> Tensor:
    """Sums of two rows and of two columns, or of two multipliers: complex64[B, H', W', C].

    The real part holds the upper row, the lower half of its bits the first column or multiplier.
    """
    from jax import lax

    size, _, channels, multiplier = taps.shape
    columns = 2 // multiplier
    batch = padded.shape[0]
    height = ((padded.shape[1] - size) // stride + 1) // _ROWS
    width = ((padded.shape[2] - size) // stride + 1) // columns

    @functools.cache
    def tap(i: int, j: int, index: int) -> Tensor:
        numbers = lax.slice(taps, (i, j, 0, index), (i + 1, j + 1, channels, index + 1))
        return lax.broadcast_in_dim(
            lax.reshape(numbers, (channels,)), (batch, height, width, channels), (3,)
        )

    steps = (1, _ROWS * stride, columns * stride, 1)

    @functools.cache
    def window(top: int, left: int) -> Tensor:
        bottom, right = top + (height - 1) * steps[1] + 1, left + (width - 1) * steps[2] + 1
        return lax.slice(padded, (0, top, left, 0), (batch, bottom, right, channels), steps)

    def one_sum(row: int, column: int, index: int) -> Tensor:
        """In two chains: each multiply-add waits for the one before it in its chain."""
        products = [
            lax.mul(window(row * stride + i, column * stride + j), tap(i, j, index))
            for i in range(size)
            for j in range(size)
        ]
        chains = [functools.reduce(lax.add, products[start::2]) for start in range(min(2, size))]
        return functools.reduce(lax.add, chains)

    pairs = [
        [one_sum(row, column, index) for column in range(columns) for index in range(multiplier)]
        for row in range(_ROWS)
    ]
    bits = [_bits(low, dtype) | (_bits(high, dtype) << _BITS_OF_HALF) for low, high in pairs]
    return lax.complex(*(lax.bitcast_convert_type(x, "float32") for x in bits))


def _bits(x: Tensor, dtype: str) -> Tensor:
    """float32 rounded to a half: its bits, uint32."""
    from jax import lax

    return lax.bitcast_convert_type(x.astype(dtype), "uint16").astype("uint32")


def _unpacked(packed: Tensor, dtype: Any, multiplier: int) -> Tensor:
    """complex64[B, H / 2, W / columns, C] -> halves [B, H, W, C * m]."""
    from jax import lax, numpy

    upper, lower = (
        lax.bitcast_convert_type(part(packed), "uint32")[:, :, None]
        for part in (lax.real, lax.imag)
    )
    batch, height, _, width, channels = upper.shape
    row = numpy.arange(_ROWS)[:, None, None]
    bits = numpy.where(row == 0, upper, lower).reshape(batch, _ROWS * height, width, channels)
    if multiplier == 2:
        halves = lax.bitcast_convert_type(bits, dtype)
        return halves.reshape(batch, _ROWS * height, width, 2 * channels)
    column = numpy.arange(2, dtype="uint32")[:, None]
    halves = (bits[:, :, :, None] >> (column * _BITS_OF_HALF)).astype("uint16")
    halves = halves.reshape(batch, _ROWS * height, 2 * width, channels)
    return lax.bitcast_convert_type(halves, dtype)
