"""Rows of bytes times int8 kernels on PyTorch's CPU, where both ranges are known beforehand.

    numbers = floor(clip(x / step + zero + 0.5, 0, 255))
    outputs = sum((numbers - zero) * kernel) * step * kernel_scale + bias

oneDNN multiplies bytes twice as fast as bfloat16 where the processor has instructions for it
(AVX-512 VNNI), computes GELU while a piece of the product is in the cache, and writes bytes again
for a product that follows: between two dense layers no map of floats is ever in memory.

Reference: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", arXiv:1712.05877, section 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from dl_techniques.compat import torch_own
from dl_techniques.kernels.machine import (
    may_differentiate,
    may_run_elsewhere,
    multiplies_static_bytes,
    runs_on_torch,
)

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 255
_USED: ContextVar[list[ByteProduct] | None] = ContextVar("used", default=None)


@contextmanager
def products_used() -> Iterator[list[ByteProduct]]:
    """The products that are computed while this is open.

    A recording repeats their operators with the numbers that they had, so it is good for as long as
    `ByteProduct.untouched` says so of all of them.
    """
    used: list[ByteProduct] = []
    token = _USED.set(used)
    try:
        yield used
    finally:
        _USED.reset(token)


def takes_bytes(x: Tensor, trains: bool) -> bool:
    """Whether a product of `x` may be one of bytes: on PyTorch's CPU, in inference.

    Args:
        x: float[..., K], or what stands for it in a trace.
        trains: whether the layer has variables that want a gradient where one is taken.
    """
    if not runs_on_torch() or isinstance(x, keras.KerasTensor) or not multiplies_static_bytes():
        return False
    import torch

    if not isinstance(x, torch.Tensor) or may_run_elsewhere(x):
        return False
    return x.dtype in (torch.float32, torch.bfloat16) and not may_differentiate(x, trains)


class ByteProduct:
    """One kernel as oneDNN wants it, with the range of what it multiplies. PyTorch only.

    Args:
        kernel: int8[K, N] variable, or int8[1, 1, K, N].
        kernel_scale: float32 variable, one for each of the N units.
        bias: float[N] variable or None.
        grid: the step of the inputs' grid and the byte that stands for 0.
        depends_on: variables that the grid was computed from.
    """

    def __init__(
        self,
        kernel: keras.Variable,
        kernel_scale: keras.Variable,
        bias: keras.Variable | None,
        grid: tuple[float, int],
        depends_on: Sequence[keras.Variable],
    ) -> None:
        import torch

        read = [kernel, kernel_scale, *([] if bias is None else [bias]), *depends_on]
        self._made_of = [
            (variable, variable.value, torch_own.version_of(variable.value)) for variable in read
        ]
        self.step, self.zero = grid
        units = int(kernel.shape[-1])
        integers = torch.from_numpy(ops.convert_to_numpy(kernel).reshape(-1, units))
        self._packed = torch_own.pack_for_bytes(integers.T.contiguous())
        self._scales = torch.from_numpy(_floats(kernel_scale))
        self._zeros = torch.zeros(units, dtype=torch.int32)
        self._bias = None if bias is None else torch.from_numpy(_floats(bias))

    def current(self) -> bool:
        """Whether its variables still hold the numbers that it was made of."""
        same = all(variable.value is value for variable, value, _ in self._made_of)
        return same and self.untouched()

    def untouched(self) -> bool:
        """Whether nothing was written to the tensors that it was made of: a tenth of the time."""
        return all(torch_own.version_of(value) == version for _, value, version in self._made_of)

    def bytes_of(self, x: Tensor) -> Tensor:
        """float[..., K] -> uint8[..., K]: the inputs on their grid."""
        import torch

        # In three passes: to bytes it is cut, not rounded, after half a step was added.
        wide = x.float() if x.dtype != torch.float32 else x
        shift = torch.full((), self.zero + 0.5, device=x.device)
        return shift.add(wide, alpha=1.0 / self.step).clamp_(0, LEVELS).to(torch.uint8)

    def __call__(
        self,
        numbers: Tensor,
        dtype: str,
        with_gelu: bool = False,
        following: ByteProduct | None = None,
    ) -> Tensor:
        """The product.

        Args:
            numbers: uint8[..., K] of `bytes_of`, or of a product that this one follows.
            dtype: "float32" or "bfloat16", of the outputs.
            with_gelu: whether the exact GELU follows.
            following: the product that the outputs are for, if they shall be its bytes.

        Returns:
            float[..., N] or, with `following`, uint8[..., N].
        """
        import torch

        used = _USED.get()
        if used is not None:
            used.append(self)
        grid = (1.0, 0) if following is None else (following.step, following.zero)
        kind = torch.uint8 if following is not None else getattr(torch, dtype)
        rows = numbers.reshape(-1, numbers.shape[-1])
        outputs = torch_own.multiply_bytes(
            rows, (self.step, self.zero), self._packed, self._scales, self._zeros, self._bias,
            grid, kind, "gelu" if with_gelu else "none",
        )  # fmt: skip
        return outputs.reshape(*numbers.shape[:-1], outputs.shape[-1])


def _floats(variable: keras.Variable) -> np.ndarray:
    """float32[N] of its own."""
    values = ops.convert_to_numpy(ops.cast(variable.value, "float32"))
    return np.array(values, "float32").reshape(-1)
