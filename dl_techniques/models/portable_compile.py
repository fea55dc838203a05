"""What `compile` was given, written so that every backend can read it.

On PyTorch an optimizer of `keras.optimizers` is made as a class of Keras' own torch part, and Keras
writes that class into the file (3.15): it cannot be loaded where PyTorch is not installed.
"""

from __future__ import annotations

from typing import Any

import keras

# Private parts of Keras, of which there is one a backend; asserted by the tests of this module.
BACKEND_MODULES = "keras.src.backend."


def portable(document: Any) -> Any:
    """A serialized object, every optimizer in it named by its public class.

    Args:
        document: what `keras.saving.serialize_keras_object` makes; it stays as it is.

    Returns:
        The same with other names. Classes that `keras.optimizers` does not know keep theirs.

    Example:
        >>> optimizer = keras.saving.serialize_keras_object(keras.optimizers.AdamW(1e-3))
        >>> portable(optimizer)["module"], portable(optimizer)["class_name"]
        ('keras.optimizers', 'AdamW')
    """
    if isinstance(document, list):
        return [portable(entry) for entry in document]
    if not isinstance(document, dict):
        return document
    made = {key: portable(value) for key, value in document.items()}
    name = made.get("class_name")
    if str(made.get("module")).startswith(BACKEND_MODULES) and _is_optimizer(name):
        made |= {"module": "keras.optimizers", "registered_name": None}
    return made


def _is_optimizer(name: Any) -> bool:
    found = getattr(keras.optimizers, name, None) if isinstance(name, str) else None
    return isinstance(found, type) and issubclass(found, keras.optimizers.Optimizer)


class PortableCompile:
    """Writes and reads public classes of optimizers. Stands before `keras.Model`.

    A class with a `compile_from_config` of its own gives what it gets to `portable`.
    """

    def get_compile_config(self) -> dict[str, Any] | None:
        """Arguments of `compile`."""
        config: dict[str, Any] | None = portable(
            super().get_compile_config()  # type: ignore[misc]
        )
        return config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model, whichever backend wrote the file."""
        super().compile_from_config(portable(config))  # type: ignore[misc]
