"""Sums of products of int8 numbers, by what each backend does best on a CPU.

Written as integer products, they are slow almost everywhere: PyTorch multiplies bytes by plain
loops on processors without AVX-512, XLA reads a kernel against its grain for a single row, and
TensorFlow's integer product takes its time for every row. Numbers up to 127 may as well be
multiplied as floats: every sum below 2^24 is exact, which 1040 products cannot leave, and a sum
beyond that is as good as any of float32.

`python -m tools.integer_sums` prints the times of all ways on the machine at hand.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import keras
from keras import ops

Tensor = Any
# Of so few rows, PyTorch widens the kernel in pieces that stay in the processor's cache.
FEW_ROWS = 8
PIECE = 1 << 18
# The longest float32 row for which XLA's CPU backend widens a kernel while it reads it: 16 kB.
LONGEST = 4095


@functools.cache
def runs_on_cpu() -> bool:
    """Whether the backend of this process computes on a CPU by default."""
    backend = keras.config.backend()
    if backend == "jax":
        import jax

        return bool(jax.default_backend() == "cpu")
    if backend == "tensorflow":
        import tensorflow as tf

        return not tf.config.list_physical_devices("GPU")
    return keras.config.backend() == "torch"


@functools.cache
def multiplies_bytes_fast() -> bool:
    """Whether PyTorch has vector instructions for bytes on this processor."""
    import torch

    return "AVX512" in torch.backends.cpu.get_cpu_capability()


def torch_sums(numbers: Tensor, kernel: Tensor) -> Tensor:
    """The product of int8[M, K] and int8[K, N] on PyTorch's CPU.

    Args:
        numbers: the rows.
        kernel: may be a view of its transpose, as a tied table is.

    Returns:
        int32[M, N], or float32[M, N] of the same numbers.
    """
    import torch

    if multiplies_bytes_fast():
        return torch._int_mm(numbers, kernel)
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


def float_sums(numbers: Tensor, kernel: Tensor, turned: bool = False) -> Tensor:
    """The same as floats, on any backend: int8[M, K], int8[K, N] -> float32[M, N].

    Args:
        numbers: the rows.
        kernel: int8[K, N], or int8[N, K] where it is turned.
        turned: how the kernel lies. XLA widens a turned kernel while it reads it, for one row;
            it makes a float copy of one that is not.
    """
    numbers = ops.cast(numbers, "float32")
    if not turned:
        return ops.matmul(numbers, ops.cast(kernel, "float32"))
    depth = kernel.shape[1]
    parts = -(-depth // LONGEST)
    ends = [depth * i // parts for i in range(parts + 1)]
    return sum(
        ops.matmul(numbers[:, start:end], ops.transpose(ops.cast(kernel[:, start:end], "float32")))
        for start, end in itertools.pairwise(ends)
    )
