"""Which implementation a backend, device and processor gets of each kernel.

An implementation is taken where its machine is the one at hand and it suits the arguments;
otherwise the reference is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dl_techniques.kernels import int8_sums, jax_depthwise, jax_products, machine, reference
from dl_techniques.kernels import torch_operators as torch_own
from dl_techniques.typing import Tensor


def always(*arguments: Any, **named: Any) -> bool:
    """Suits all arguments."""
    return True


def _pointwise_halves(
    x: Tensor, kernel: Tensor, bias: Tensor | None = None, stride: int = 1
) -> bool:
    small = kernel.shape[0] == 1 and stride == 1
    return small and jax_products.is_half(x) and machine.multiplies_bfloat16()


def _halves(x: Tensor, *others: Any, **named: Any) -> bool:
    return jax_products.is_half(x) and machine.multiplies_bfloat16()


def _no_mask(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> bool:
    return mask is None


@dataclass(frozen=True)
class Implementation:
    """One way to compute a kernel.

    Attributes:
        machine: whether this process has what it needs.
        function: takes what the kernel takes.
        suits: whether it is meant for these arguments.
    """

    machine: Callable[[], bool]
    function: Callable[..., Any]
    suits: Callable[..., bool] = always


@dataclass(frozen=True)
class Kernel:
    """A kernel: its reference, and at most one implementation for each backend."""

    reference: Callable[..., Any]
    implementations: tuple[Implementation, ...] = ()

    def chosen(self, *arguments: Any, **named: Any) -> Callable[..., Any]:
        """What computes these arguments here."""
        for each in self.implementations:
            if each.machine() and each.suits(*arguments, **named):
                return each.function
        return self.reference

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Computes."""
        return self.chosen(*arguments, **named)(*arguments, **named)


def _on_torch(function: Callable[..., Any]) -> Implementation:
    return Implementation(machine.runs_on_torch, function)


def _on_jax(function: Callable[..., Any], suits: Callable[..., bool] = always) -> Implementation:
    return Implementation(machine.runs_on_jax_cpu, function, suits)


def _jax_conv(x: Tensor, kernel: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    return jax_products.jax_dense(x, kernel[0, 0], bias)


TABLE: dict[str, Kernel] = {
    "conv": Kernel(
        reference.conv, (_on_torch(torch_own.torch_conv), _on_jax(_jax_conv, _pointwise_halves))
    ),
    "depthwise_conv": Kernel(
        reference.depthwise_conv,
        (_on_torch(torch_own.torch_depthwise_conv), _on_jax(jax_depthwise.jax_depthwise_conv)),
    ),
    "dense": Kernel(
        reference.dense,
        (_on_torch(torch_own.torch_dense), _on_jax(jax_products.jax_dense, _halves)),
    ),
    "to_vocabulary": Kernel(
        reference.to_vocabulary,
        (
            _on_torch(lambda x, table: torch_own.torch_dense(x, table.T)),
            _on_jax(jax_products.jax_to_vocabulary, _halves),
        ),
    ),
    "matmul": Kernel(reference.matmul, (_on_jax(jax_products.matmul_in_float32),)),
    "gelu": Kernel(reference.gelu, (_on_torch(torch_own.torch_gelu),)),
    "silu": Kernel(reference.silu, (_on_torch(torch_own.torch_silu),)),
    "attention": Kernel(reference.attention, (_on_jax(jax_products.attention_by_heads, _no_mask),)),
    "attention_mask": Kernel(reference.attention_mask, (_on_torch(torch_own.torch_scores),)),
    "grouped_attention": Kernel(
        reference.grouped_attention,
        (_on_torch(torch_own.torch_grouped_attention), _on_jax(jax_products.grouped_attention)),
    ),
    "rms_norm": Kernel(reference.rms_norm, (_on_torch(torch_own.torch_rms_norm),)),
    "rotate": Kernel(reference.rotate, (_on_torch(torch_own.torch_rotate),)),
    "row_places": Kernel(reference.row_places, (_on_torch(torch_own.torch_row_places),)),
    "write_rows": Kernel(reference.write_rows, (_on_torch(torch_own.torch_write),)),
    "write_slots": Kernel(reference.write_slots, (_on_torch(torch_own.torch_write_slots),)),
    "quantize_rows": Kernel(
        reference.quantize_rows,
        (_on_torch(int8_sums.torch_quantize_rows), _on_jax(int8_sums.jax_quantize_rows)),
    ),
    "int8_matmul": Kernel(reference.int8_matmul, (_on_torch(int8_sums.torch_sums),)),
    "rescale": Kernel(reference.rescale, (_on_torch(int8_sums.torch_rescale),)),
}
