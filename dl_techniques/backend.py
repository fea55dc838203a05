"""Chooses the Keras backend before Keras is imported: one rule, for the library and the command.

What the user said (KERAS_BACKEND, or a `keras.json` that names anything but Keras' own default)
is respected, and is an error where it is not installed: it is never replaced. Otherwise the first
installed of `ORDER` is taken. The order is that of the time from Enter to the first token.

Example:
    >>> from dl_techniques.backend import requested_backend
    >>> requested_backend({"KERAS_BACKEND": "jax"})
    'jax'
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from dl_techniques.errors import DLTechniquesError, MissingExtraError, install_hint

# Measured with `fastvlm benchmark` on 2 cores and a model of 7 M parameters. CPU-seconds to the
# first token: JAX 7 from the second run on, PyTorch 10, TensorFlow 11. Decoding: JAX 3 to 4 times
# as fast as TensorFlow; PyTorch slowest, above all when something else uses the cores.
ORDER = ("jax", "tensorflow", "torch")
KERAS_DEFAULT = "tensorflow"


def _installed(module: str) -> bool:
    if module in sys.modules:  # None where this process hides it from its imports
        return sys.modules[module] is not None
    return find_spec(module) is not None


def keras_json(environment: Mapping[str, str]) -> Path:
    """Where Keras keeps the user's configuration."""
    home = environment.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "keras.json"


def requested_backend(environment: Mapping[str, str]) -> str | None:
    """The backend that the user asked for, if any.

    Keras writes `keras.json` by itself with "tensorflow" in it, so only another name there is
    a wish.

    Args:
        environment: the process environment.

    Returns:
        "jax", "tensorflow", "torch", or None without a wish.

    Raises:
        DLTechniquesError: KERAS_BACKEND names no backend of this package, or `keras.json` is
            damaged.
    """
    wish = environment.get("KERAS_BACKEND")
    if wish:
        if wish not in ORDER:
            raise DLTechniquesError(
                f"KERAS_BACKEND is {wish[:100]!r}; expected one of {', '.join(sorted(ORDER))}"
            )
        return wish
    path = keras_json(environment)
    if not path.is_file():
        return None
    try:
        named = json.loads(path.read_text(encoding="utf-8")).get("backend")
    except (OSError, ValueError, AttributeError) as error:
        raise DLTechniquesError(f"{path} is not a valid Keras configuration: {error}") from error
    return named if named in ORDER and named != KERAS_DEFAULT else None


def pick_backend(
    environment: Mapping[str, str], installed: Callable[[str], bool] = _installed
) -> str:
    """The backend to use.

    Args:
        environment: the process environment.
        installed: tells whether a module can be imported.

    Returns:
        "jax", "tensorflow" or "torch".

    Raises:
        MissingExtraError: the wanted backend, or any backend at all, is not installed.
    """
    wish = requested_backend(environment)
    if wish is not None:
        if not installed(wish):
            raise MissingExtraError(
                f"the backend {wish!r} is asked for but not installed: {install_hint(wish)}",
                name=wish,
            )
        return wish
    for name in ORDER:
        if installed(name):
            return name
    extras = ", ".join(ORDER)
    raise MissingExtraError(
        f"no Keras backend is installed; choose one of the extras {extras}: "
        f"{install_hint(ORDER[0])}",
        name=ORDER[0],
    )


def choose_backend() -> None:
    """Sets KERAS_BACKEND if Keras is not imported yet, and says on stderr what nobody asked for.

    Called where the first name is taken from the package. Processes that this one starts inherit
    the choice, so it is said once.

    Raises:
        DLTechniquesError: see `requested_backend`.
        MissingExtraError: see `pick_backend`; or Keras was imported before and failed.

    Example:
        >>> choose_backend()  # Keras is imported already: nothing happens
    """
    if sys.modules.get("keras") is not None:
        return
    name = pick_backend(os.environ)
    if any(module.startswith("keras.src.") for module in sys.modules):
        # Keras has decided on a backend when it was imported, and would decide on it again.
        raise MissingExtraError(
            f"Keras was imported before dl_techniques and failed; set KERAS_BACKEND={name} "
            "(an installed backend) before Keras is imported, and start Python again",
            name=name,
        )
    if not os.environ.get("KERAS_BACKEND") and requested_backend(os.environ) is None:
        print(
            f"dl_techniques: KERAS_BACKEND is not set, so Keras runs on {name}, the first "
            "installed backend",
            file=sys.stderr,
        )
    os.environ["KERAS_BACKEND"] = name
