"""What the command does beside the package's choice of a backend, for a quick start.

A process of the command holds no code but ours, so what serves nothing here is not imported.
"""

from __future__ import annotations

import os
import sys

from dl_techniques.backend import pick_backend
from dl_techniques.runtime.programs import set_cache_variables


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
