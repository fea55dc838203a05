"""Fake quantization: TensorFlow's values, straight-through gradients, ranges that follow."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from dl_techniques.layers.quantized.fake_quant import (
    ActivationQuantizer,
    Arithmetic,
    computed_by,
    fake_quantize,
    fake_quantize_kernel,
    kernel_scale,
)
from tests.helpers import Array, numbers, random_array

RANGES = [(-3.3, 2.9), (0.0, 6.0), (-1.0, 0.0), (-0.01, 4.0), (-5.0, 0.02)]


def on_grid(x: Array, low: float, high: float, bits: int) -> Array:
    """The definition, in float64: the zero point is a whole number, values are its multiples."""
    levels = 2**bits - 1
    scale = (high - low) / levels
    zero = np.clip(np.floor(-low / scale + 0.5), 0, levels)
    return (np.clip(np.floor(x / scale + zero + 0.5), 0, levels) - zero) * scale


def gradient(function: Any, x: Array) -> Array:
    """Derivative of the sum of `function(x)`, on the current backend."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tensor = tf.constant(x)
            tape.watch(tensor)
            total = ops.sum(function(tensor))
        return numbers(tape.gradient(total, tensor))
    if backend == "jax":
        import jax

        return numbers(jax.grad(lambda t: ops.sum(function(t)))(ops.convert_to_tensor(x)))
    import torch

    leaf = torch.tensor(x, requires_grad=True)
    ops.sum(function(leaf)).backward()
    return numbers(leaf.grad)


@pytest.mark.parametrize(("low", "high"), RANGES)
@pytest.mark.parametrize("bits", [8, 4])
def test_activations_lie_on_the_nudged_grid(low: float, high: float, bits: int) -> None:
    x = 4 * random_array(2000)
    got = numbers(fake_quantize(x, np.float32(low), np.float32(high), bits))
    step = (high - low) / (2**bits - 1)
    # float32 may put a value that lies halfway on either side.
    off = np.abs(got - on_grid(x.astype("float64"), low, high, bits))
    assert np.mean(off < 1e-3 * step) > 0.998 and off.max() < 1.001 * step
    assert numbers(fake_quantize(np.zeros(1, "float32"), low, high, bits))[0] == 0.0


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="compares with TensorFlow's op")
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_activations_equal_tensorflows(low: float, high: float) -> None:
    import tensorflow as tf

    x = tf.constant(4 * random_array(5000))
    expected = tf.quantization.fake_quant_with_min_max_vars(x, low, high, num_bits=8).numpy()
    got = ops.convert_to_numpy(fake_quantize(x, np.float32(low), np.float32(high)))
    np.testing.assert_array_max_ulp(got, expected, maxulp=1)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="compares with TensorFlow's op")
def test_kernels_equal_tensorflows_per_channel() -> None:
    import tensorflow as tf

    kernel = random_array(3, 3, 8, 16)
    largest = np.abs(kernel).max((0, 1, 2))
    expected = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        kernel, -largest, largest, num_bits=8, narrow_range=True
    ).numpy()
    got = ops.convert_to_numpy(fake_quantize_kernel(kernel, (0, 1, 2)))
    np.testing.assert_array_max_ulp(got, expected, maxulp=1)


def test_kernels_have_at_most_255_values_a_channel_and_keep_their_extremes() -> None:
    kernel = random_array(7, 7, 6, 2)
    kernel[:, :, 3, 1] = 0.0
    scale = numbers(kernel_scale(kernel, (0, 1)))
    assert scale.shape == (1, 1, 6, 2) and scale[0, 0, 3, 1] == 1.0
    steps = numbers(fake_quantize_kernel(kernel, (0, 1))) / scale
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-4)
    extremes = np.delete(np.abs(steps).max((0, 1)).ravel(), 7)
    np.testing.assert_allclose(extremes, 127, rtol=1e-5)


def test_gradient_of_activations_is_one_inside_the_range_and_zero_outside() -> None:
    x = np.array([-5.0, -1.0, -0.3, 0.0, 0.4, 1.55, 1.7, 9.0], "float32")
    got = gradient(lambda t: fake_quantize(t, np.float32(-1.0), np.float32(1.55)), x)
    np.testing.assert_array_equal(got, [0, 1, 1, 1, 1, 1, 0, 0])


def test_gradient_of_kernels_is_the_identitys() -> None:
    weights = random_array(3, 3, 2, 4)
    weighted = random_array(3, 3, 2, 4, seed=1)
    got = gradient(lambda t: ops.multiply(fake_quantize_kernel(t, (0, 1, 2)), weighted), weights)
    np.testing.assert_allclose(got, weighted, rtol=1e-6)


def test_an_unknown_range_lets_everything_pass() -> None:
    x = random_array(50)
    np.testing.assert_array_equal(numbers(fake_quantize(x, 0.0, 0.0)), x)
    np.testing.assert_array_equal(gradient(lambda t: fake_quantize(t, 0.0, 0.0), x), np.ones(50))


def test_ranges_follow_while_training_and_stand_still_otherwise() -> None:
    quantizer = ActivationQuantizer(momentum=0.75)
    quantizer(np.array([1.0, 2.0], "float32"), training=False)
    assert not quantizer.known
    quantizer(np.array([1.0, 2.0], "float32"), training=True)
    assert (float(quantizer.low), float(quantizer.high)) == (0.0, 2.0)
    quantizer(np.array([-4.0, 4.0], "float32"), training=True)
    assert (float(quantizer.low), float(quantizer.high)) == (-1.0, 2.5)
    quantizer(np.array([-40.0, 40.0], "float32"), training=False)
    assert (float(quantizer.low), float(quantizer.high)) == (-1.0, 2.5)
    assert not quantizer.trainable_variables


def test_half_precision_keeps_its_type_and_is_rounded_in_float32() -> None:
    x = ops.cast(random_array(64), "bfloat16")
    got = fake_quantize(x, np.float32(-1.0), np.float32(1.0))
    assert keras.backend.standardize_dtype(got.dtype) == "bfloat16"
    expected = ops.cast(fake_quantize(ops.cast(x, "float32"), -1.0, 1.0), "bfloat16")
    np.testing.assert_array_equal(numbers(got), numbers(expected))


def test_another_arithmetic_stands_in_inside_the_block_only() -> None:
    class Doubled(Arithmetic):
        def activations(self, quantizer: Any, inputs: Any, training: bool) -> Any:
            return 2 * inputs

    quantizer, x = ActivationQuantizer(), random_array(4)
    with computed_by(Doubled()):
        np.testing.assert_allclose(numbers(quantizer(x)), 2 * x)
    np.testing.assert_allclose(numbers(quantizer(x)), x)
