"""Weights that no bug can hide behind: nothing keeps its initial value."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from dl_techniques.layers.layer_scale import LayerScale

Array = np.ndarray[Any, np.dtype[Any]]


def randomize(model: Any, seed: int = 0) -> None:
    """Gives every weight of a model a value of its own.

    Kernels N(0, 1 / fan_in), biases and means N(0, 0.1), gammas and variances U(0.5, 1.5), layer
    scales U(0.1, 0.4).
    """
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=True, recursive=True):
        for variable in [*layer._trainable_variables, *layer._non_trainable_variables]:
            if variable.name != "seed_generator_state":
                variable.assign(_draw(rng, layer, variable).astype("float32"))


def _draw(rng: np.random.Generator, layer: Any, variable: Any) -> Array:
    shape = tuple(variable.shape)
    if variable.name == "kernel":
        own_channel = isinstance(layer, keras.layers.DepthwiseConv2D)
        return rng.normal(0, np.prod(shape[: 2 if own_channel else -1]) ** -0.5, shape)
    if isinstance(layer, LayerScale):
        return rng.uniform(0.1, 0.4, shape)
    if variable.name in ("gamma", "moving_variance"):
        return rng.uniform(0.5, 1.5, shape)
    return rng.normal(0, 0.1, shape)
