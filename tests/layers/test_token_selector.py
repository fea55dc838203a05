"""Fewer tokens: the right ones stay, the others are merged into them, in order."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.layers.token_selector import TokenSelector
from tests.helpers import TOLERANCE, Array, numbers, random_array, rebuilt, relative_difference


def units(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def plain_selection(tokens: Array, number: int) -> Array:
    """One picture's tokens, token by token, in float64: float[N, D] -> float[k, D]."""
    directions = units(tokens.astype("float64"))
    mean = units(directions.mean(axis=0))
    kept = sorted(np.argsort(directions @ mean, kind="stable")[:number])
    sums = {i: tokens[i].astype("float64") for i in kept}
    totals = dict.fromkeys(kept, 1.0)
    for j in set(range(len(tokens))) - set(kept):
        cosines = [directions[i] @ directions[j] for i in kept]
        nearest, weight = kept[int(np.argmax(cosines))], max(0.0, max(cosines))
        sums[nearest] = sums[nearest] + weight * tokens[j]
        totals[nearest] += weight
    return np.stack([sums[i] / totals[i] for i in kept])


@pytest.mark.parametrize("number", [1, 5, 11])
def test_equals_the_plain_selection(number: int) -> None:
    x = random_array(3, 12, 8) + 0.5
    expected = np.stack([plain_selection(row, number) for row in x])
    assert relative_difference(TokenSelector(number)(x), expected) < TOLERANCE


@pytest.mark.parametrize("number", [12, 20, None])
def test_all_tokens_pass_bit_for_bit(number: int | None) -> None:
    x = random_array(2, 12, 8)
    np.testing.assert_array_equal(numbers(TokenSelector(number)(x)), x.astype("float64"))


def test_what_stands_out_stays_where_it_stood() -> None:
    """Two odd tokens on an even ground: both stay, in order, and so does one of the ground."""
    x = np.tile(np.array([1.0, 0, 0, 0], "float32"), (1, 9, 1))
    x[0, 7], x[0, 2] = [0, 3, 0, 0], [0, 0, 5, 0]
    got = numbers(TokenSelector(3)(x))[0]
    np.testing.assert_allclose(got, [x[0, 0], x[0, 2], x[0, 7]], atol=1e-6)


def test_rows_do_not_see_each_other() -> None:
    x, layer = random_array(4, 10, 6), TokenSelector(4)
    alone = np.concatenate([numbers(layer(x[i : i + 1])) for i in range(4)])
    assert relative_difference(layer(x), alone) < TOLERANCE


def test_zeros_and_copies_stay_finite() -> None:
    x = np.zeros((2, 6, 4), "float32")
    x[1] = 2.0
    got = numbers(TokenSelector(2)(x))
    np.testing.assert_allclose(got, x[:, :2], atol=1e-6)


def test_types_shapes_and_config() -> None:
    layer = TokenSelector(4, dtype="bfloat16", name="select")
    outputs = layer(random_array(2, 9, 6))
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert layer.compute_output_shape((None, 9, 6)) == (None, 4, 6)
    assert layer.compute_output_shape((2, 3, 6)) == (2, 3, 6)
    assert TokenSelector(None).compute_output_shape((2, None, 6)) == (2, None, 6)
    assert rebuilt(layer).get_config() == layer.get_config()
    with pytest.raises(ValueError, match="num_tokens=0"):
        TokenSelector(0)


def test_the_last_tokens_always_stay() -> None:
    x = random_array(2, 9, 6)
    layer = TokenSelector(5, num_last=2)
    got = numbers(layer(x))
    expected = np.stack([plain_selection(row, 3) for row in x[:, :7]])
    assert relative_difference(got[:, :3], expected) < TOLERANCE
    np.testing.assert_array_equal(got[:, 3:], x[:, 7:])
    assert layer.compute_output_shape((2, 9, 6)) == got.shape
    assert rebuilt(layer).get_config() == layer.get_config()
    with pytest.raises(ValueError, match="num_tokens=2 must be at least 3"):
        TokenSelector(2, num_last=2)


def test_a_number_of_tokens_known_only_at_run_time() -> None:
    inputs = keras.Input((None, 6))
    model = keras.Model(inputs, TokenSelector(3)(inputs))
    assert model.output_shape == (None, 3, 6)
    x = random_array(2, 7, 6)
    expected = np.stack([plain_selection(row, 3) for row in x])
    assert relative_difference(model.predict_on_batch(x), expected) < TOLERANCE


def _trained(kernel: Any) -> TokenSelector:
    layer = TokenSelector(3, trained=True)
    layer.build((None, 8, 4))
    layer.score.kernel.assign(kernel)
    return layer


def test_an_untrained_score_changes_nothing_and_a_trained_one_does() -> None:
    x = random_array(2, 8, 4)
    expected = TokenSelector(3)(x)
    assert relative_difference(_trained(np.zeros((4, 1)))(x), expected) < TOLERANCE
    layer = _trained([[9.0], [0.0], [0.0], [0.0]])
    assert relative_difference(layer(x), expected) > 1e-2
    np.testing.assert_array_equal(numbers(rebuilt(layer, x.shape)(x)), numbers(layer(x)))


def test_the_score_is_trained() -> None:
    inputs = keras.Input((8, 4))
    layer = TokenSelector(3, trained=True)
    model = keras.Model(inputs, layer(inputs))
    model.compile(keras.optimizers.SGD(1.0), "mse")
    model.fit(random_array(4, 8, 4), random_array(4, 3, 4, seed=3), verbose=0)
    assert np.abs(numbers(layer.score.kernel)).max() > 0
