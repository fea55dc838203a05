"""Layer scale and stochastic depth."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dl_techniques.layers.layer_scale import LayerScale, StochasticDepth
from tests.helpers import check_layer, numbers, random_array


def test_layer_scale_scales_channels() -> None:
    layer, x = LayerScale(0.5), random_array(2, 3, 3, 4)
    np.testing.assert_array_equal(numbers(layer(x)), x * 0.5)
    gamma = np.arange(4, dtype="float32")
    layer.gamma.assign(gamma)
    np.testing.assert_array_equal(numbers(layer(x)), x * gamma)


def test_layer_contract() -> None:
    check_layer(LayerScale(0.3), (2, 3, 5, 4))
    check_layer(StochasticDepth(0.3, seed=4), (2, 3, 5, 4), training=False)


def test_stochastic_depth_drops_whole_samples() -> None:
    x = np.abs(random_array(400, 2, 3, 4)) + 1
    outputs = numbers(StochasticDepth(0.25, seed=1)(x, training=True))
    kept = outputs[:, 0, 0, 0] != 0
    np.testing.assert_allclose(outputs[kept], x[kept] / 0.75, rtol=1e-6)
    assert (outputs[~kept] == 0).all()
    assert 0.65 < kept.mean() < 0.85


def test_stochastic_depth_keeps_the_expectation() -> None:
    outputs = numbers(StochasticDepth(0.4, seed=2)(np.ones((20_000, 1), "float32"), training=True))
    # The mean's standard deviation is sqrt(0.4 / 0.6 / 20000) = 0.0058.
    assert abs(outputs.mean() - 1.0) < 0.03


def test_stochastic_depth_draws_anew() -> None:
    layer, x = StochasticDepth(0.5, seed=3), np.ones((64, 1), "float32")
    assert (numbers(layer(x, training=True)) != numbers(layer(x, training=True))).any()


@pytest.mark.parametrize("training", [False, None])
def test_stochastic_depth_is_nothing_at_inference(training: bool | None) -> None:
    x = random_array(8, 2, 2, 1)
    np.testing.assert_array_equal(numbers(StochasticDepth(0.9)(x, training=training)), x)


def test_rate_zero_needs_no_generator() -> None:
    layer, x = StochasticDepth(0.0), random_array(8, 3)
    np.testing.assert_array_equal(numbers(layer(x, training=True)), x)
    assert not layer.variables


def test_half_precision_stays() -> None:
    layer = StochasticDepth(0.5, dtype="mixed_bfloat16")
    outputs = layer(np.ones((4, 3), "float32"), training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_rates_are_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=rf"\[0, 1\).*{rate}"):
        StochasticDepth(rate)
