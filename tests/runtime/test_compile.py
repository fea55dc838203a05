"""Compiled functions: weights are read at call time, ints never recompile, nothing goes stale."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from dl_techniques.runtime import compile as compile_module
from dl_techniques.runtime.compile import FunctionCache, compile_function
from tests.helpers import numbers


def test_weights_are_read_when_called() -> None:
    layer = keras.layers.Dense(1, use_bias=False)
    layer.build((None, 2))
    function = compile_function(layer, layer.variables)
    x = np.ones((1, 2), "float32")
    layer.set_weights([np.array([[1.0], [2.0]])])
    assert float(numbers(function(x))[0, 0]) == 3
    layer.set_weights([np.array([[5.0], [2.0]])])
    assert float(numbers(function(x))[0, 0]) == 7


def test_integers_are_arguments() -> None:
    traces = []

    def add(x: Any, n: Any) -> Any:
        traces.append(n)
        return x + ops.cast(n, "float32")

    function = compile_function(add, [])
    got = [float(numbers(function(np.zeros(1, "float32"), n))[0]) for n in range(5)]
    assert got == [0, 1, 2, 3, 4]
    assert len(traces) == (5 if keras.config.backend() == "torch" else 1)


def test_a_function_that_runs_often_stays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the calls after which it is recorded: new weights, numbers and shapes are seen."""
    monkeypatch.setattr(compile_module, "CALLS_BEFORE_RECORDING", 2)
    layer = keras.layers.Dense(1, use_bias=False)
    layer.build((None, 2))
    python_runs = []

    def function(x: Any, n: Any) -> Any:
        python_runs.append(n)
        return layer(x) + ops.cast(n, "float32")

    compiled = compile_function(function, layer.variables, often=True)
    for n in range(6):
        layer.set_weights([np.array([[1.0], [float(n)]])])
        assert float(numbers(compiled(np.ones((1, 2), "float32"), n))[0, 0]) == 1 + 2 * n
    assert numbers(compiled(np.ones((3, 2), "float32"), 1)).shape == (3, 1)
    assert len(python_runs) < 6


def test_nested_arguments_and_results() -> None:
    function = compile_function(lambda pair: (pair[1], (pair[0],)), [])
    a, (b,) = function((np.float32([1]), np.float32([2])))
    assert (float(numbers(a)[0]), float(numbers(b)[0])) == (2, 1)


def test_no_gradients_are_recorded() -> None:
    layer = keras.layers.Dense(1)
    layer.build((None, 2))
    out = compile_function(layer, layer.variables)(np.ones((1, 2), "float32"))
    assert not getattr(out, "requires_grad", False)


def test_cache_compiles_once_per_key_and_forgets_with_the_weights() -> None:
    made = []

    def make() -> Any:
        made.append(1)
        return lambda x: x

    cache, weight = FunctionCache(), keras.Variable(1.0)
    cache.refresh([weight])
    first = cache.get("a", make())
    assert cache.get("a", make()) is first
    cache.refresh([weight])
    assert cache.get("a", make()) is first
    cache.refresh([weight, keras.Variable(2.0)])
    assert cache.get("a", make()) is not first
    cache.refresh([weight, keras.Variable(2.0)])
    assert len(cache._functions) == 0


def test_eager_runs_the_function_itself() -> None:
    seen = []
    function = FunctionCache(eager=True).get("a", lambda n: seen.append(n) or ops.ones(()))
    function(3)
    function(3)
    assert seen == [3, 3]
