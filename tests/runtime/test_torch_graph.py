"""Graphs of operators: replayed on other numbers, they give what the function gives."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from dl_techniques.runtime.recording import Recording
from tests.helpers import numbers, random_array

if keras.config.backend() != "torch":
    pytest.skip("PyTorch only", allow_module_level=True)

import torch

from dl_techniques.runtime.torch_graph import NotReplayableError, record_graph


def recorded(function: Any, *args: Any) -> Any:
    """A recording of some call; that call's outputs are checked."""
    with torch.no_grad():
        replay, outputs = record_graph(function, args)
        again = function(*args)
    for left, right in zip(keras.tree.flatten(outputs), keras.tree.flatten(again), strict=True):
        np.testing.assert_array_equal(numbers(left), numbers(right))
    return replay


def tensor(*shape: int, seed: int = 0) -> Any:
    return torch.from_numpy(random_array(*shape, seed=seed))


def test_nested_tensors_in_place_writes_and_literals() -> None:
    def function(cache: Any, pair: Any) -> Any:
        rows, index = pair
        total = torch.tensor(1.0)
        total += rows.sum()
        new = ops.slice_update(cache, (0, index), rows)
        new = ops.slice_update(new, (1, 5), rows[:1, :1] * 2)  # written through a view
        low, high = torch.split(new, 3, dim=1)
        return {"new": new, "parts": (low, high * total), "same": cache}

    first = (tensor(2, 6), (tensor(2, 2, seed=1), torch.tensor(1)))
    replay = recorded(function, *first)
    for seed, index in ((2, 3), (4, 0)):
        args = (tensor(2, 6, seed=seed), (tensor(2, 2, seed=seed + 1), torch.tensor(index)))
        kept = args[0].clone()
        got, expected = replay(*args), function(*args)
        assert got.keys() == expected.keys() and got["same"] is args[0]
        for name in ("new", "parts"):
            for left, right in zip(
                keras.tree.flatten(got[name]), keras.tree.flatten(expected[name]), strict=True
            ):
                np.testing.assert_array_equal(numbers(left), numbers(right))
        np.testing.assert_array_equal(numbers(args[0]), numbers(kept))


def test_variables_are_read_again_and_constants_stay() -> None:
    variable = keras.Variable([1.0, 2.0])
    constant = torch.tensor([10.0, 10.0])
    replay = recorded(lambda x: x * variable.value + constant, tensor(2))
    variable.assign([3.0, 4.0])
    assert numbers(replay(torch.ones(2))).tolist() == [13.0, 14.0]


def test_maps_between_operators_are_given_up() -> None:
    """A recording needs no more memory than the function: nothing in between is kept alive."""
    import weakref

    alive: list[Any] = []

    def function(x: Any) -> Any:
        for _ in range(4):
            x = x * 2
            alive.append(weakref.ref(x))
        return x + 1

    replay, outputs = record_graph(function, (tensor(3),))
    assert [reference() for reference in alive] == [None] * 4
    assert replay(torch.ones(3)).tolist() == [17.0] * 3 and outputs.shape == (3,)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 2 if x.sum() > 0 else x * 3,
        lambda x: x[x > 0],
        lambda x: x * x.max().item(),
    ],
)
def test_what_depends_on_numbers_is_not_recorded(function: Any) -> None:
    with pytest.raises(NotReplayableError, match="depends on numbers"):
        record_graph(function, (torch.ones(2),))
    recording = Recording(function, calls=1)
    for x in ([1.0, 2.0], [1.0, 3.0], [-1.0, -2.0], [4.0, -5.0]):
        np.testing.assert_array_equal(recording(np.float32(x)), function(torch.tensor(x)))
