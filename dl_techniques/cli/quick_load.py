"""Builds a model whose weights are about to be read, without drawing random ones first.

Keras gives every new variable random numbers, and a preset then replaces all of them. On JAX the
generators are compiled one by one, shape by shape: half of the time that a first start takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

RANDOM = ("RandomNormal", "TruncatedNormal", "RandomUniform", "VarianceScaling")


def zeros(initializer: Any, shape: Sequence[int], dtype: Any = None) -> Any:
    """Stands in for the call of a random initializer: float32 zeros, cast by the variable."""
    import numpy as np

    return np.zeros(shape, "float32")


@contextmanager
def without_random_weights() -> Iterator[None]:
    """While it lasts, Keras' random initializers give zeros.

    Only for models that are loaded whole right after: a weight that no file fills stays zero.
    Not for use in threads that build other models meanwhile.
    """
    import keras

    originals: dict[type, Callable[..., Any]] = {}
    for name in RANDOM:
        kind = getattr(keras.initializers, name)
        originals[kind] = kind.__call__
    try:
        for kind in originals:
            kind.__call__ = zeros  # type: ignore[method-assign]
        yield
    finally:
        for kind, call in originals.items():
            kind.__call__ = call  # type: ignore[method-assign]
