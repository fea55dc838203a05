"""What this process computes with, and what its processor can do.

Only the kernels ask; whoever stands above asks `dl_techniques.kernels` for a result, or for a
property such as `prefers_matrices`, and never for the name of a backend.

One switch turns everything off that is not `keras.ops`: `use("reference")`, or
`DL_TECHNIQUES_KERNELS=reference` in the environment. Then whatever goes wrong is not a kernel's.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import keras

from dl_techniques.compat import torch_own
from dl_techniques.errors import DLTechniquesError

if TYPE_CHECKING:
    import torch

VARIABLE = "DL_TECHNIQUES_KERNELS"
KINDS = ("fastest", "reference")
CPU_FLAGS = Path("/proc/cpuinfo")
_CHOSEN: list[str] = []
"""What `use` or the environment said last; empty until somebody asks."""


def kind() -> str:
    """`"fastest"` or `"reference"`.

    Raises:
        DLTechniquesError: the environment names another kind.
    """
    if not _CHOSEN:
        _CHOSEN.append(_checked(os.environ.get(VARIABLE) or KINDS[0], VARIABLE))
    return _CHOSEN[-1]


def _checked(word: str, where: str) -> str:
    if word not in KINDS:
        raise DLTechniquesError(f"{where} is {word!r}; expected one of {', '.join(KINDS)}")
    return word


class Use:
    """What `use` returns: inside a `with` block the choice ends with the block."""

    def __init__(self, before: str) -> None:
        self._before = before

    def __enter__(self) -> None:
        """The choice has been made already."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Goes back to what held before."""
        _CHOSEN[:] = [self._before]


def use(which: str) -> Use:
    """Chooses the kernels of this process: from here on, or for a `with` block.

    What was compiled before keeps the kernels that it was compiled with, so choose before a model
    answers or trains for the first time.

    Args:
        which: `"fastest"`, or `"reference"` for `keras.ops` alone.

    Raises:
        DLTechniquesError: another word.

    Example:
        >>> with use("reference"):
        ...     kind()
        'reference'
    """
    before = kind()
    _CHOSEN[:] = [_checked(which, "the kind of kernels")]
    return Use(before)


@functools.cache
def _backend() -> str:
    return str(keras.config.backend())


def runs_on_torch() -> bool:
    """Whether PyTorch's kernels are used."""
    return _backend() == "torch" and kind() == "fastest"


def is_jax_on_cpu() -> bool:
    """Whether this process computes with JAX on a CPU, whatever the switch says."""
    return _backend() == "jax" and runs_on_cpu()


def runs_on_jax_cpu() -> bool:
    """Whether JAX's kernels are used: those for a CPU, the only ones there are."""
    return is_jax_on_cpu() and kind() == "fastest"


def runs_on_tensorflow() -> bool:
    """Whether what suits TensorFlow is done."""
    return _backend() == "tensorflow" and kind() == "fastest"


@functools.cache
def runs_on_cpu() -> bool:
    """Whether the backend of this process computes on a CPU by default."""
    if _backend() == "jax":
        import jax

        return bool(jax.default_backend() == "cpu")
    if _backend() == "tensorflow":
        import tensorflow as tf

        return not tf.config.list_physical_devices("GPU")
    return _backend() == "torch"


def multiplies_bfloat16() -> bool:
    """Whether this process is JAX on a CPU with instructions for bfloat16 (Linux tells)."""
    if not runs_on_jax_cpu() or not CPU_FLAGS.is_file():
        return False
    return bool({"avx512_bf16", "amx_bf16"}.intersection(_flags(CPU_FLAGS)))


@functools.cache
def _flags(path: Path) -> frozenset[str]:
    return frozenset(path.read_text(encoding="utf-8").split())


@functools.cache
def multiplies_bytes_fast() -> bool:
    """Whether PyTorch has vector instructions for bytes on this processor."""
    import torch

    return "AVX512" in torch.backends.cpu.get_cpu_capability()


@functools.cache
def multiplies_static_bytes() -> bool:
    """Whether oneDNN has vector instructions for products of uint8 and int8 on this processor.

    Without AVX-512 VNNI, sums of two products saturate at 16 bits.
    """
    import torch

    return torch.backends.mkldnn.is_available() and torch_own.multiplies_vnni()


@functools.cache
def onednn_multiplies(dtype: Any) -> bool:
    """Whether oneDNN is there and has a product of this torch data type on this processor."""
    import torch

    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return torch_own.multiplies_bfloat16()
    return bool(dtype == torch.float32)


def may_run_elsewhere(x: torch.Tensor) -> bool:
    """Whether a computation is elsewhere than on this CPU, or traced for what may be elsewhere.

    Args:
        x: a torch tensor.
    """
    import torch

    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return bool(traced or x.device.type != "cpu")


def may_differentiate(x: torch.Tensor, trains: bool) -> bool:
    """Whether PyTorch may want a gradient of what is computed from a tensor.

    Args:
        x: a torch tensor.
        trains: whether variables that learn take part.
    """
    import torch

    return bool(torch.is_grad_enabled() and (x.requires_grad or trains))
