"""Sums of products of int8 numbers, by what each backend does best on a CPU.

Written as integer products, they are slow almost everywhere: PyTorch multiplies bytes by plain
loops on processors without AVX-512, XLA reads a kernel against its grain for a single row, and
TensorFlow's integer product takes its time for every row. Numbers up to 127 may as well be
multiplied as floats: every sum below 2^24 is exact, which 1040 products cannot leave, and a sum
beyond that is as good as any of float32.

`python -m tools.integer_sums` prints the times of all ways on the machine at hand.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from keras import ops

from dl_techniques.compat import torch_own
from dl_techniques.kernels.machine import multiplies_bytes_fast
from dl_techniques.kernels.reference import quantize_rows

if TYPE_CHECKING:
    from torch import Tensor

# Of so few rows, PyTorch widens the kernel in pieces that stay in the processor's cache.
FEW_ROWS = 8
PIECE = 1 << 18


def lies_by_units(kernel: Tensor, axes: int) -> bool:
    """Whether a torch kernel is elsewhere than on the CPU, or lies by its units already.

    Args:
        kernel: int8, of which the first `axes` meet the input.
        axes: how many.
    """
    flat = kernel.data.reshape(math.prod(kernel.shape[:axes]), -1)
    return kernel.device.type != "cpu" or flat.T.is_contiguous()


def lay_by_units(kernel: Tensor, axes: int) -> None:
    """Lays a torch kernel out so that a unit's weights are side by side; shape and numbers stay."""
    rows = math.prod(kernel.shape[:axes])
    transposed = kernel.data.reshape(rows, -1).T.contiguous()
    kernel.data = transposed.T.reshape(kernel.shape)


def torch_quantize_rows(
    x: Tensor, value_range: tuple[int, int], epsilon: float
) -> tuple[Tensor, Tensor]:
    """Keras' quantizer in PyTorch's own operators: a third of those of `keras.ops`.

    Args:
        x: float[rows, K].
        value_range: least and largest number.
        epsilon: added to the largest value of a row.

    Returns:
        int8[rows, K] and float[rows, 1].
    """
    low, high = value_range
    # Not `high / ...`, which PyTorch rounds twice.
    scale = ops.divide(high, x.abs().amax(dim=1, keepdim=True) + epsilon)
    return ops.cast((x * scale).round_().clamp_(low, high), "int8"), scale


def jax_quantize_rows(
    x: Tensor, value_range: tuple[int, int], epsilon: float
) -> tuple[Tensor, Tensor]:
    """A row's numbers as floats, in a branch of their own.

    XLA would otherwise compute them inside the product, once for each unit, which takes longer than
    the product itself. Barriers do not keep it from that; a branch does.

    Args:
        x: float[rows, K].
        value_range: least and largest number.
        epsilon: added to the largest value of a row.

    Returns:
        float32[rows, K] of whole numbers and float[rows, 1].
    """

    def quantized() -> tuple[Tensor, Tensor]:
        numbers, scale = quantize_rows(x, value_range, epsilon)
        return ops.cast(numbers, "float32"), ops.cast(scale, x.dtype)

    def nothing() -> tuple[Tensor, Tensor]:
        return ops.zeros(x.shape, "float32"), ops.ones((len(x), 1), x.dtype)

    numbers, scale = ops.cond(ops.any(x != 0), quantized, nothing)
    return numbers, scale


def torch_rescale(sums: Tensor, divisor: Tensor) -> Tensor:
    """`sums / divisor`, in place where the types allow it: a third less time for large maps."""
    return sums.div_(divisor) if divisor.dtype == sums.dtype else sums / divisor


def torch_sums(numbers: Tensor, kernel: Tensor, transposed: bool = False) -> Tensor:
    """The product of int8[M, K] and int8[K, N] on PyTorch's CPU.

    Args:
        numbers: the rows.
        kernel: int8[K, N], or int8[N, K] where it is transposed.
        transposed: how the kernel lies.

    Returns:
        int32[M, N], or float32[M, N] of the same numbers.
    """
    import torch

    kernel = kernel.T if transposed else kernel
    if multiplies_bytes_fast():
        return torch_own.multiply_int8(numbers, kernel)
    rows = numbers.float()
    if len(rows) > FEW_ROWS:
        return rows @ kernel.float()
    if not kernel.is_contiguous():
        parts = kernel.T.split(max(1, PIECE // kernel.shape[0]))
        return torch.cat([rows @ part.float().T for part in parts], dim=1)
    step = max(1, PIECE // kernel.shape[1])
    sums = rows.new_zeros(len(rows), kernel.shape[1])
    for part, piece in zip(rows.split(step, dim=1), kernel.split(step), strict=True):
        sums = torch.addmm(sums, part, piece.float())
    return sums
