"""Optimizers from settings: the rate's way, what decays, Muon's steps, averages."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dl_techniques.training import Optimizer, WeightAverage, cosine
from dl_techniques.training.optimizers import KINDS

pytestmark = pytest.mark.once


def _trained(kind: str, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How a layer's and a head's matrix move in one step at a rate of 0.1, without decay."""
    layer, head = (keras.layers.Dense(6, use_bias=False, name=name) for name in ("a", "b_dense"))
    model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(4), head])
    settings = Optimizer(kind, 0.1, weight_decay=0.0)
    optimizer = settings.build(None, heads=("b_dense",))
    before = [keras.ops.convert_to_numpy(v.kernel) for v in (layer, head)]
    kernels = [layer.kernel, head.kernel]
    assert len(model.weights) == 4
    optimizer.apply([keras.ops.convert_to_tensor(gradient)] * 2, kernels)
    after = [keras.ops.convert_to_numpy(kernel) for kernel in kernels]
    return after[0] - before[0], after[1] - before[1]


def test_muon_moves_matrices_by_orthogonal_steps_and_heads_as_adam_does() -> None:
    gradient = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    matrix, head = _trained("muon", gradient)
    steps = np.linalg.svd(matrix / (0.1 * 0.2 * np.sqrt(6)), compute_uv=False)
    assert 0.6 < steps.min() and steps.max() < 1.3  # an ordinary gradient's differ by far more
    np.testing.assert_allclose(head, -0.1 * np.sign(gradient), rtol=1e-3)
    both = _trained("adamw", gradient)
    np.testing.assert_allclose(both, -0.1 * np.sign([gradient, gradient]), rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_not_decayed(kind: str) -> None:
    layer = keras.layers.Dense(3, name="layer")
    layer.build((None, 3))
    layer.bias.assign([1.0, 1.0, 1.0])
    optimizer = Optimizer(kind, 0.5, weight_decay=0.02).build(None)
    before = np.array(keras.ops.convert_to_numpy(layer.kernel))
    optimizer.apply([0 * layer.kernel.value, 0 * layer.bias.value], [layer.kernel, layer.bias])
    np.testing.assert_allclose(layer.kernel, before * (1 - 0.5 * 0.02), rtol=1e-5)
    np.testing.assert_array_equal(layer.bias, 1.0)


def test_the_rate_rises_and_falls_over_the_batches() -> None:
    rate = Optimizer(learning_rate=0.2, warmup=0.1, last=0.05, accumulate=4).schedule(100)
    told = [float(keras.ops.convert_to_numpy(rate(step))) for step in (0, 5, 10, 55, 100)]
    np.testing.assert_allclose(told, [0, 0.1, 0.2, 0.105, 0.01], rtol=1e-5)
    few = Optimizer(learning_rate=0.2, warmup=0.1, warmup_steps=2).schedule(100)
    assert float(keras.ops.convert_to_numpy(few(2))) == pytest.approx(0.2)
    assert float(keras.ops.convert_to_numpy(cosine(0.1, 10, 0, first=0.5)(0))) == pytest.approx(
        0.05
    )


def test_gathered_gradients_have_an_average_of_their_own() -> None:
    alone, gathered = Optimizer(average=0.9), Optimizer(average=0.9, accumulate=2)
    assert alone.build(10).use_ema and alone.callbacks() == []
    made = gathered.build(10)
    assert not made.use_ema and made.gradient_accumulation_steps == 2
    assert [type(callback) for callback in gathered.callbacks()] == [WeightAverage]
    assert Optimizer().callbacks() == [] and not Optimizer().build(10).use_ema
