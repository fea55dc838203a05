"""What JAX offers under `jax.experimental`, which may move."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any


def not_inlined() -> AbstractContextManager[Any]:
    """Inside, calls of jitted functions stay calls in the compiled program."""
    from jax.experimental.xla_metadata import set_xla_metadata

    scope: AbstractContextManager[Any] = set_xla_metadata(inlineable="false")
    return scope


def forget_program_folder() -> None:
    """Lets JAX look again at where compiled programs are kept."""
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.reset_cache()
