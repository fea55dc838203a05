"""Chooses the Keras backend of the command line, before Keras is imported.

A library must not choose for its user; a command may. What the user said (KERAS_BACKEND, or a
`keras.json` that names anything but Keras' own default) is respected; otherwise the first
installed of `ORDER` is taken. The order is that of the time from Enter to the first token.

Example:
    >>> from dl_techniques.cli.backend import requested_backend
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

from dl_techniques.errors import DLTechniquesError, MissingExtraError
from dl_techniques.runtime.programs import set_cache_variables

# Measured with `fastvlm benchmark` on 2 cores and a model of 7 M parameters. CPU-seconds to the
# first token: JAX 7 from the second run on, PyTorch 10, TensorFlow 11. Decoding: JAX 3 to 4 times
# as fast as TensorFlow; PyTorch slowest, above all when something else uses the cores.
ORDER = ("jax", "tensorflow", "torch")
KERAS_DEFAULT = "tensorflow"


def _installed(module: str) -> bool:
    return find_spec(module) is not None


def keras_json(environment: Mapping[str, str]) -> Path:
    """Where Keras keeps the user's configuration."""
    home = environment.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "keras.json"


def requested_backend(environment: Mapping[str, str]) -> str | None:
    """The backend that the user asked for, if any.

    Keras writes `keras.json` by itself with "tensorflow" in it, so only another name there is
    a wish.

    Raises:
        DLTechniquesError: KERAS_BACKEND names no backend of this package.
    """
    wish = environment.get("KERAS_BACKEND")
    if wish:
        if wish not in ORDER:
            raise DLTechniquesError(
                f"KERAS_BACKEND is {wish!r}; expected one of {', '.join(sorted(ORDER))}"
            )
        return wish
    path = keras_json(environment)
    if not path.is_file():
        return None
    try:
        named = json.loads(path.read_text(encoding="utf-8")).get("backend")
    except (ValueError, AttributeError) as error:
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
                f"the backend {wish!r} is asked for but not installed: "
                f"pip install 'dl-techniques[{wish}]'",
                name=wish,
            )
        return wish
    for name in ORDER:
        if installed(name):
            return name
    raise MissingExtraError(
        f"no Keras backend is installed: pip install 'dl-techniques[{ORDER[0]}]'", name=ORDER[0]
    )


def leave_out(*modules: str) -> None:
    """Makes `import` of modules fail in this process, unless they are imported already.

    keras-hub imports TensorFlow wherever it finds it, which costs seconds and half a gigabyte
    and serves nothing on another backend; Keras imports matplotlib, which costs another second,
    for plots that only a caller asks for. Both run without by their own design.
    """
    for module in modules:
        sys.modules.setdefault(module, None)  # type: ignore[arg-type]


def set_up_backend(plots: bool = False) -> str:
    """Chooses the backend and prepares it; does nothing where Keras is already imported.

    Args:
        plots: whether this process draws plots.

    Returns:
        The name of the backend.
    """
    if "keras" in sys.modules:
        import keras

        return str(keras.backend.backend())
    name = pick_backend(os.environ)
    os.environ["KERAS_BACKEND"] = name
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if name == "jax":
        set_cache_variables(os.environ)
    if name != "tensorflow":
        leave_out("tensorflow", "tensorflow_text")
    if not plots:
        leave_out("matplotlib")
    return name
