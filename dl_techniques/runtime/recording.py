"""Functions on PyTorch that run often: recorded once, then replayed as plain ATen calls.

Keras' part of a forward pass, some 150 us a layer, is longer than the arithmetic of small pictures
and of single tokens. After a few calls with the same shapes the operators of one call are recorded
and from then on called directly: the same operators on the same variables, so the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques.kernels.torch_bytes import ByteProduct, products_used

CALLS_OF_PREDICT = 8
"""Calls of `predict_on_batch` (or batches of `predict`) with the same shapes that run as they are.
A recording takes as long as some small pictures: a single one should not pay for it."""


def as_tensors(args: Any) -> Any:
    """Converts NumPy arrays in nested arguments to tensors; everything else stays."""
    return keras.tree.map_structure(
        lambda x: ops.convert_to_tensor(x) if isinstance(x, np.ndarray) else x, args
    )


class Recording:
    """A function of tensors that is recorded when it has run often enough. PyTorch only.

    Args:
        function: takes nested tensors and Python ints; it must compute the same operators whenever
            shapes, data types and variables are the same. One whose operators depend on numbers
            is never recorded.
        calls: how many calls of the same kind run as they are.
        variables: gives the variables that the function reads; where one is another object than
            before, the recordings made with it no longer count. Nor do those with a product of
            bytes whose variables hold other numbers.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        calls: int,
        variables: Callable[[], Sequence[Any]] = tuple,
    ) -> None:
        self.function, self.calls, self.variables = function, calls, variables
        self._known: list[Any] = []
        self._seen: Counter[str] = Counter()
        self._recorded: dict[str, Callable[..., Any]] = {}
        self._products: list[ByteProduct] = []

    def __call__(self, *args: Any) -> Any:
        """The function's result, without gradients."""
        import torch

        # Not inference_mode: its tensors could never enter a training step later.
        with torch.no_grad():
            args = as_tensors(args)
            self._forget_if_changed()
            key = str([_kind(leaf) for leaf in keras.tree.flatten(args)])
            self._seen[key] += 1
            if self._seen[key] <= self.calls:
                return self.function(*args)
            # A recording would freeze a Python int.
            args = keras.tree.map_structure(
                lambda x: ops.convert_to_tensor(x, "int32") if type(x) is int else x, args
            )
            if key in self._recorded:
                return self._recorded[key](*args)
            with products_used() as products:
                self._recorded[key], outputs = _record(self.function, args)
            self._products += products
            return outputs

    def _forget_if_changed(self) -> None:
        values = [variable.value for variable in self.variables()]
        same = len(values) == len(self._known) and all(
            a is b for a, b in zip(values, self._known, strict=True)
        )
        if not same or not all(product.untouched() for product in self._products):
            self._known = values
            self._seen.clear()
            self._recorded.clear()
            self._products.clear()


def _kind(leaf: Any) -> list[Any]:
    return [getattr(leaf, name, None) for name in ("shape", "dtype", "device")]


def _record(function: Callable[..., Any], args: Any) -> tuple[Callable[..., Any], Any]:
    """A recording and its outputs; the function itself where operators depend on numbers."""
    from dl_techniques.runtime.torch_graph import NotReplayableError, record_graph

    try:
        return record_graph(function, args)
    except NotReplayableError:
        return function, function(*args)


def recorded_predictions(model: keras.Model, predict_function: Any) -> Any:
    """A model's predict function, recorded when it runs often: on PyTorch, unless the model is
    compiled otherwise or runs eagerly; the function itself elsewhere.

    Args:
        model: `keras.Model`.
        predict_function: what Keras made for it.
    """
    if keras.config.backend() != "torch" or model.run_eagerly or model.jit_compile:
        return predict_function
    return Recording(predict_function, CALLS_OF_PREDICT, lambda: model.variables)
