"""Compiled programs that outlive their process, where the backend offers that.

JAX can write what XLA compiled to a folder and read it back in the next process, which then
compiles nothing. TensorFlow keeps none of its graphs, and PyTorch runs eagerly here.

Example:
    >>> import dl_techniques
    >>> folder = dl_techniques.keep_compiled_programs()  # doctest: +SKIP

Reference: https://docs.jax.dev/en/latest/persistent_compilation_cache.html
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CACHE_BYTES = 512 * 1024 * 1024
FOLDER = "JAX_COMPILATION_CACHE_DIR"
VARIABLES: dict[str, Callable[[str], Any]] = {
    FOLDER: str,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": float,
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": int,
    "JAX_COMPILATION_CACHE_MAX_SIZE": int,
}
"""JAX's environment variables and the type of each; its options have the same names, in lower
case."""


def cache_folder(environment: Mapping[str, str], platform: str = sys.platform) -> Path:
    """The folder of this user's caches for this package."""
    if environment.get("XDG_CACHE_HOME"):
        base = Path(environment["XDG_CACHE_HOME"])
    elif platform == "win32" and environment.get("LOCALAPPDATA"):
        base = Path(environment["LOCALAPPDATA"])
    elif platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    return base / "dl_techniques"


def set_cache_variables(environment: MutableMapping[str, str]) -> None:
    """Lets a JAX that is imported later keep what it compiles; what is set already stays."""
    environment.setdefault(FOLDER, str(cache_folder(environment) / "jax"))
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    if find_spec("filelock") is not None:  # JAX needs it to bound the folder
        environment.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(CACHE_BYTES))


def keep_compiled_programs(folder: str | Path | None = None) -> Path | None:
    """Lets this process read and write compiled programs in a folder; call it once, at the start.

    What was compiled before the call is not written. The environment variables of JAX have the
    last word where `folder` is not given.

    Args:
        folder: where to. Defaults to `dl_techniques/jax` in the user's cache folder, which is kept
            below 512 MiB where `filelock` is installed.

    Returns:
        The folder, or None on a backend that keeps nothing (TensorFlow, PyTorch).

    Example:
        >>> import dl_techniques, keras
        >>> kept = dl_techniques.keep_compiled_programs("programs")  # doctest: +SKIP
        >>> (kept is None) == (keras.config.backend() != "jax")  # doctest: +SKIP
        True
    """
    import keras

    if keras.config.backend() != "jax":
        return None
    import jax

    from dl_techniques.compat.jax_own import forget_program_folder

    values: dict[str, str] = dict(os.environ)
    if folder is not None:
        values[FOLDER] = str(Path(folder).absolute())
    set_cache_variables(values)
    for name, kind in VARIABLES.items():
        if name in values:
            jax.config.update(name.lower(), kind(values[name]))
    forget_program_folder()  # what JAX found out about an earlier folder, or its absence
    return Path(values[FOLDER])
