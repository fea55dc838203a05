"""Means of trained models: runs that went apart from one start stay near enough to each other.

Wortsman et al., "Model soups", arXiv:2203.05482; "Robust fine-tuning of zero-shot models",
arXiv:2109.01903.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from dl_techniques.errors import TrainingError


def set_mean(
    model: keras.Model, others: Sequence[keras.Model], shares: Sequence[float] | None = None
) -> None:
    """Gives a model the mean of its weights and those of others.

    Args:
        model: it is changed.
        others: of the same weights.
        shares: of the model and of each other; None for equal ones.

    Raises:
        TrainingError: the models' weights differ in number or shape.

    Example:
        >>> def layer(value):
        ...     made = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        ...     made.set_weights([np.full((1, 1), value), np.full(1, value)])
        ...     return made
        >>> model = layer(1.0)
        >>> set_mean(model, [layer(3.0)], (0.75, 0.25))
        >>> float(model.get_weights()[0][0, 0])
        1.5
    """
    every = [model, *others]
    shapes = [[tuple(weight.shape) for weight in one.weights] for one in every]
    for one, own in zip(every, shapes, strict=True):
        if own != shapes[0]:
            raise TrainingError(
                f"{one.name} has other weights than {model.name}: no mean can be taken"
            )
    told = [1 / len(every)] * len(every) if shares is None else list(shares)
    means = []
    for values in zip(*(one.get_weights() for one in every), strict=True):
        parts = [share * value for share, value in zip(told, values, strict=True)]
        means.append(np.sum(parts, axis=0))
    model.set_weights(means)
