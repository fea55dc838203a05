"""The convolutional feed-forward network."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dl_techniques.layers.activations import gelu
from dl_techniques.layers.conv_ffn import ConvFFN, dense_as_convolutions
from dl_techniques.layers.folding import scaled_dense
from tests.helpers import (
    check_forms,
    check_layer,
    numbers,
    numpy_convolution,
    random_array,
    randomize,
    relative_difference,
)

SHAPE = (2, 5, 4, 6)


def test_equals_its_definition() -> None:
    layer, x = ConvFFN(12), random_array(*SHAPE)
    layer.build(SHAPE)
    randomize(layer)
    mixed = numpy_convolution(x, numbers(layer.conv.conv.kernel), depthwise=True)
    norm = layer.conv.norm
    mean, variance = numbers(norm.moving_mean), numbers(norm.moving_variance)
    mixed = (mixed - mean) / np.sqrt(variance + 1e-5) * numbers(norm.gamma) + numbers(norm.beta)
    hidden = mixed @ numbers(layer.fc1.kernel) + numbers(layer.fc1.bias)
    hidden = numbers(gelu(keras.ops.convert_to_tensor(hidden.astype("float32"))))
    expected = hidden @ numbers(layer.fc2.kernel) + numbers(layer.fc2.bias)
    assert relative_difference(layer(x), expected) < 2e-6


@pytest.mark.parametrize("folded", [False, True])
def test_layer_contract(folded: bool) -> None:
    check_layer(ConvFFN(12, 3, 0.1, folded=folded), SHAPE)


def test_forms() -> None:
    check_forms(ConvFFN(12), SHAPE, fold=True)


def test_fusing_alone_leaves_the_norm() -> None:
    layer = ConvFFN(8)
    layer.build(SHAPE)
    count = len(layer.weights)
    layer.reparameterize()
    assert len(layer.weights) == count and not layer.folded


def test_dropout_works_in_training_only() -> None:
    layer, x = ConvFFN(12, dropout_rate=0.5, folded=True), random_array(*SHAPE)
    layer.build(SHAPE)
    randomize(layer)
    assert relative_difference(layer(x, training=True), layer(x)) > 0.01
    np.testing.assert_array_equal(numbers(layer(x, training=False)), numbers(layer(x)))


def test_scaled_dense() -> None:
    dense, x = keras.layers.Dense(3), random_array(2, 4)
    dense.build(x.shape)
    randomize(dense)
    scale = np.array([1.0, 2.0, -3.0])
    kernel, bias = scaled_dense(dense, scale)
    assert relative_difference(x @ kernel + bias, numbers(dense(x)) * scale) < 1e-6


@pytest.mark.parametrize("mode", [None, "int8"])
def test_dense_layers_as_convolutions(mode: str | None) -> None:
    layer, x = ConvFFN(12, 3, folded=True), random_array(*SHAPE)
    layer.build(SHAPE)
    randomize(layer)
    if mode:
        layer.fc1.quantize(mode)
        layer.fc2.quantize(mode)
    expected = numbers(layer(x))
    with dense_as_convolutions():
        assert relative_difference(layer(x), expected) < 2e-6
    assert relative_difference(layer(x), expected) == 0


@pytest.mark.parametrize("name", ["fc1", "fc2"])
def test_one_dense_layer_in_int8(name: str) -> None:
    layer, x = ConvFFN(16), random_array(2, 5, 4, 8)
    layer.build(x.shape)
    randomize(layer)
    expected = numbers(layer(x))
    getattr(layer, name).quantize("int8")
    for form in (numbers(layer(x)), numbers(keras.Sequential([layer]).predict(x, verbose=0))):
        assert 0 < relative_difference(form, expected) < 0.03
    with dense_as_convolutions():
        assert relative_difference(layer(x), expected) < 0.03
