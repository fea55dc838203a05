"""PyTorch's operators for one kind of processor, and how it counts writes to a tensor.

Needed for speed on PyTorch's CPU; a name that is gone is an error in `predict`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def multiplies_bfloat16() -> bool:
    """Whether oneDNN has products of bfloat16 on this processor."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def multiplies_vnni() -> bool:
    """Whether this processor has AVX-512 VNNI; `False` before PyTorch 2.6, which does not tell."""
    import torch

    tells = getattr(torch.cpu, "_is_vnni_supported", None)
    return tells is not None and bool(tells())


def linear_with_activation(rows: Tensor, kernel: Tensor, bias: Tensor, activation: str) -> Tensor:
    """float[M, K] times float[N, K] transposed, plus bias, then "gelu" or "none", by oneDNN."""
    import torch

    return torch.ops.mkldnn._linear_pointwise(rows, kernel, bias, activation, [], "none")


def multiply_int8(rows: Tensor, kernel: Tensor) -> Tensor:
    """int8[M, K], int8[K, N] -> int32[M, N]."""
    import torch

    return torch._int_mm(rows, kernel)


def pack_for_bytes(kernel: Tensor) -> Tensor:
    """int8[N, K] as `multiply_bytes` wants it."""
    import torch

    return torch.ops.onednn.qlinear_prepack(kernel, None)


def multiply_bytes(
    rows: Tensor,
    grid: tuple[float, int],
    packed: Tensor,
    scales: Tensor,
    zeros: Tensor,
    bias: Tensor | None,
    output_grid: tuple[float, int],
    output_type: Any,
    activation: str,
) -> Tensor:
    """uint8[M, K] times a packed kernel, scaled back, plus bias, then "gelu" or "none".

    Args:
        rows: bytes on `grid`.
        grid: step, and the byte that stands for 0.
        packed: of `pack_for_bytes`.
        scales: float32[N], of the kernel.
        zeros: int32[N], of the kernel.
        bias: float32[N] or None.
        output_grid: of the outputs, where they are bytes.
        output_type: torch data type of the outputs.
        activation: "gelu" or "none".
    """
    import torch

    return torch.ops.onednn.qlinear_pointwise(
        rows, *grid, packed, scales, zeros, bias, *output_grid, output_type, activation, [], "none"
    )


def version_of(tensor: Tensor) -> int:
    """How often a tensor was written to."""
    return int(tensor._version)
