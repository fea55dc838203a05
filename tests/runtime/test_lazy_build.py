"""Networks without values: shapes without memory, first values without detours."""

from __future__ import annotations

from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest

from dl_techniques.layers.reparameterization import sync_variables
from dl_techniques.runtime.lazy_build import is_unfilled, place, without_values
from tests.models.vlm.fast_vlm.small_model import make_backbone


def dense(dtype: str = "float32") -> Any:
    with without_values() as unfilled:
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, dtype=dtype)])
    return model, unfilled


def test_shapes_without_values() -> None:
    model, unfilled = dense()
    assert all(is_unfilled(v) for v in model.weights) and model.count_params() == 16
    # The end of any other scope must not fill them.
    with keras.StatelessScope():
        other = keras.layers.Dense(2)
        other.build((None, 3))
    assert not is_unfilled(other.kernel)
    assert all(is_unfilled(v) for v in model.weights)
    assert {id(v) for v in model.weights} <= {id(v) for v in unfilled.variables}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
def test_place(dtype: str, stored: str) -> None:
    model, _ = dense(dtype)
    kernel = np.arange(12).reshape(3, 4).astype(stored)
    place(model.layers[-1].kernel, kernel)
    place(model.layers[-1].bias, np.ones(4, stored))
    sync_variables(model)
    assert {str(v.dtype) for v in model.weights} == {dtype}
    out = model(np.eye(3, dtype="float32"))
    found = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(out, "float32")))
    np.testing.assert_array_equal(found, np.arange(12).reshape(3, 4) + 1.0)


def test_placing_twice_replaces() -> None:
    model, unfilled = dense()
    unfilled.fill_rest(of=model)
    for value in (1.0, 2.0):
        place(model.layers[-1].kernel, np.full((3, 4), value, ml_dtypes.bfloat16))
        assert float(keras.ops.sum(model.layers[-1].kernel)) == 12 * value


def test_a_placed_model_trains() -> None:
    model, unfilled = dense()
    place(model.layers[-1].kernel, np.zeros((3, 4), "float32"))
    unfilled.fill_rest(of=model)
    sync_variables(model)
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 3)), np.ones((4, 4)), verbose=0)
    assert (keras.ops.convert_to_numpy(model.layers[-1].kernel) > 0).all()


def test_fill_rest_leaves_what_will_be_placed_and_forgets_what_is_gone() -> None:
    with without_values() as unfilled:
        kept, gone = keras.layers.Dense(4), keras.layers.Dense(4)
        kept.build((None, 3))
        gone.build((None, 3))
    unfilled.fill_rest(of=kept, but={id(kept.kernel)})
    assert is_unfilled(kept.kernel) and not is_unfilled(kept.bias)
    assert is_unfilled(gone.kernel) and not unfilled.variables


def test_a_vision_language_model_is_filled_to_the_same() -> None:
    whole = make_backbone()
    with without_values() as unfilled:
        empty = type(whole).from_config(whole.get_config())
    assert [v.shape for v in empty.weights] == [v.shape for v in whole.weights]
    for empty_variable, variable in zip(empty.weights, whole.weights, strict=True):
        place(empty_variable, np.array(keras.ops.convert_to_numpy(variable.value)))
    unfilled.fill_rest(of=empty)
    sync_variables(empty)
    rng = np.random.default_rng(0)
    inputs = {
        "images": rng.uniform(0, 1, (1, 1, 32, 32, 3)).astype("float32"),
        "vision_indices": np.arange(4)[None].astype("int32"),
        "token_ids": np.ones((1, 9), "int32"),
        "padding_mask": np.ones((1, 9), "int32"),
    }
    outputs = [keras.ops.convert_to_numpy(m(inputs)) for m in (whole, empty)]
    np.testing.assert_array_equal(*outputs)
