"""What `compile` was given, written so that every backend can read it.

On PyTorch an optimizer of `keras.optimizers` is made as a class of Keras' own torch part, and Keras
writes that class into the file (3.15): it cannot be loaded where PyTorch is not installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from dl_techniques.compat.keras_models import key_of, undecayed
from dl_techniques.errors import TrainingError

# Private parts of Keras, of which there is one a backend; asserted by the tests of this module.
BACKEND_MODULES = "keras.src.backend."
UNDECAYED = "not_decayed"


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


def undecayed_of(
    optimizer: keras.optimizers.Optimizer | None, variables: Sequence[keras.Variable]
) -> dict[str, Any] | None:
    """What weight decay leaves alone, as a file can hold it; None where it decays everything.

    Args:
        optimizer: of a compiled model.
        variables: the model's trainable ones, in order.
    """
    if optimizer is None:
        return None
    inner = _innermost(optimizer)
    names, keys = undecayed(inner)
    places = [i for i, variable in enumerate(variables) if key_of(inner, variable) in keys]
    return {"names": names, "places": places} if names or places else None


def leave_undecayed(
    optimizer: keras.optimizers.Optimizer | None,
    left_out: Mapping[str, Any] | None,
    variables: Sequence[keras.Variable],
) -> None:
    """Excludes again what `undecayed_of` noted; the optimizer is not built yet."""
    if optimizer is not None and left_out is not None:
        names = [left_out["names"]] if left_out["names"] else None
        _innermost(optimizer).exclude_from_weight_decay(
            [variables[place] for place in left_out["places"]], names
        )


def _innermost(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer that moves the weights."""
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer


class PortableCompile:
    """What `compile` was given survives a file, and a change of it is told. Before `keras.Model`.

    Files name public classes of optimizers, and say what weight decay leaves alone, which Keras
    (3.15) forgets. What learns when training begins is what goes on learning until the next
    `compile`: a layer that is frozen in between would be trained on by TensorFlow, in silence.
    """

    name: str
    trainable_variables: list[keras.Variable]
    _learning: frozenset[int] | None = None

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Keras' `compile`; what is trainable now is what will learn."""
        super().compile(*args, **kwargs)  # type: ignore[misc]
        self._learning = None

    def make_train_function(self, force: bool = False) -> Any:
        """Builds the training function.

        Raises:
            TrainingError: layers were frozen, made trainable or exchanged since training began.
        """
        now = frozenset(id(variable) for variable in self.trainable_variables)
        if self._learning is not None and now != self._learning:
            raise TrainingError(
                f"{self.name} began training with {len(self._learning)} trainable weights and has "
                f"{len(now)} others now: call compile() again after freezing layers, making them "
                "trainable or adding adapters"
            )
        self._learning = now
        return super().make_train_function(force)  # type: ignore[misc]

    def get_compile_config(self) -> dict[str, Any] | None:
        """Arguments of `compile`, and what is not decayed."""
        config: dict[str, Any] | None = portable(
            super().get_compile_config()  # type: ignore[misc]
        )
        left_out = undecayed_of(getattr(self, "optimizer", None), self.trainable_variables)
        return config if config is None or left_out is None else {**config, UNDECAYED: left_out}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model as it was compiled, whichever backend wrote the file."""
        config = dict(portable(config))
        left_out = config.pop(UNDECAYED, None)
        self.compile(**keras.saving.deserialize_keras_object(config))
        optimizer = getattr(self, "optimizer", None)
        leave_undecayed(optimizer, left_out, self.trainable_variables)
        if optimizer is not None and getattr(self, "built", False):
            optimizer.build(self.trainable_variables)
