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


def number_of(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> int:
    """The place of a variable among those that an optimizer changes."""
    return int(optimizer._get_variable_index(variable))


def takes_shapes_of_first_batches() -> bool:
    """Whether `fit` takes the shapes of the first two batches for those of all: on TensorFlow."""
    return bool(keras.config.backend() == "tensorflow")
