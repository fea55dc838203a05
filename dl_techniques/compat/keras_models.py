"""What Keras' models and optimizers keep to themselves: how they are built before training."""

from __future__ import annotations

from typing import Any

import keras


def has_strategy(model: keras.Model) -> bool:
    """Whether a model on TensorFlow was made under a distribution strategy."""
    return model._distribute_strategy is not None


def build_for_training(model: keras.Model, specification: Any) -> None:
    """Creates the variables of optimizer and metrics from the shapes of a batch."""
    model._symbolic_build(data_batch=specification)


def fetch_state(model: keras.Model) -> None:
    """Brings weights into the variables: on JAX they live in the training loop meanwhile."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def is_functional(model: keras.Model) -> bool:
    """Whether a model is made of operations that Keras knows, so that it can be cloned."""
    return isinstance(model, keras.Sequential) or hasattr(model, "operations")


def undecayed(optimizer: keras.optimizers.Optimizer) -> tuple[str | None, set[Any]]:
    """What `exclude_from_weight_decay` was given: a pattern of names, and keys of variables."""
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    keys = getattr(optimizer, "_exclude_from_weight_decay", None)
    return None if pattern is None else pattern.pattern, set(keys or ())


def key_of(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> Any:
    """By what an optimizer knows a variable."""
    return optimizer._var_key(variable)


def number_of(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> int:
    """The place of a variable among those that an optimizer changes."""
    return int(optimizer._get_variable_index(variable))


def takes_shapes_of_first_batches() -> bool:
    """Whether `fit` takes the shapes of the first two batches for those of all: on TensorFlow."""
    return bool(keras.config.backend() == "tensorflow")
