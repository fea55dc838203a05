"""The arithmetic of fusing, held against plain convolutions in float64."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dl_techniques.layers.fusion import (
    Linear,
    as_float64,
    batch_norm_affine,
    centre_pad,
    fuse_identity_norm,
    fuse_norm,
    identity_kernel,
    relative_change,
    scale_outputs,
)
from tests.helpers import numpy_convolution, random_array, randomize

BOTH = pytest.mark.parametrize("depthwise", [False, True])


def batch_norm(channels: int) -> keras.layers.BatchNormalization:
    """A BatchNorm with random values."""
    norm = keras.layers.BatchNormalization(epsilon=1e-3)
    norm.build((None, channels))
    randomize(norm, seed=9)
    return norm


def normalized(norm: keras.layers.BatchNormalization, x: np.ndarray) -> np.ndarray:
    """What the BatchNorm does at inference, from its definition."""
    deviation = np.sqrt(as_float64(norm.moving_variance) + norm.epsilon)
    standard = (x - as_float64(norm.moving_mean)) / deviation
    return standard * as_float64(norm.gamma) + as_float64(norm.beta)


def kernel_of(size: int, channels: int, multiplier: int, depthwise: bool) -> np.ndarray:
    """A random float64 kernel; the dense one has as many outputs as the depthwise one."""
    outputs = multiplier if depthwise else channels * multiplier
    return random_array(size, size, channels, outputs).astype("float64")


def apply(linear: Linear, x: np.ndarray, depthwise: bool) -> np.ndarray:
    """The map that a `Linear` stands for."""
    return numpy_convolution(x, linear.kernel, depthwise=depthwise) + linear.bias


def test_affine_form_of_batch_norm() -> None:
    norm, x = batch_norm(6), random_array(5, 6)
    scale, shift = batch_norm_affine(norm)
    np.testing.assert_allclose(x * scale + shift, normalized(norm, x), rtol=1e-12)


@BOTH
@pytest.mark.parametrize("multiplier", [1, 2])
def test_convolution_and_norm_become_one(depthwise: bool, multiplier: int) -> None:
    x, kernel = random_array(2, 5, 4, 3), kernel_of(3, 3, multiplier, depthwise)
    norm = batch_norm(3 * multiplier)
    expected = normalized(norm, numpy_convolution(x, kernel, depthwise=depthwise))
    np.testing.assert_allclose(
        apply(fuse_norm(kernel, norm, depthwise), x, depthwise), expected, rtol=1e-10, atol=1e-12
    )


@BOTH
def test_norm_alone_becomes_a_convolution(depthwise: bool) -> None:
    x, norm = random_array(1, 4, 5, 3), batch_norm(3)
    linear = fuse_identity_norm(norm, 3, depthwise)
    np.testing.assert_allclose(apply(linear, x, depthwise), normalized(norm, x), rtol=1e-10)


@BOTH
def test_identity_kernel_copies(depthwise: bool) -> None:
    x = random_array(1, 4, 3, 2).astype("float64")
    copied = numpy_convolution(x, identity_kernel(7, 2, depthwise), depthwise=depthwise)
    np.testing.assert_array_equal(copied, x)


def test_centre_pad_keeps_the_function() -> None:
    x, kernel = random_array(1, 6, 5, 2), kernel_of(3, 2, 2, False)
    padded = centre_pad(kernel, 7)
    assert padded.shape == (7, 7, 2, 4)
    np.testing.assert_allclose(numpy_convolution(x, padded), numpy_convolution(x, kernel))


def test_scale_outputs_numbers_depthwise_channels_as_keras_does() -> None:
    kernel = np.ones((1, 1, 2, 3))
    scaled = scale_outputs(kernel, np.arange(6.0), depthwise=True)
    np.testing.assert_array_equal(scaled[0, 0], [[0, 1, 2], [3, 4, 5]])


def test_linear_adds_and_subtracts_parts_not_tuples() -> None:
    left, right = Linear(np.full((1, 1, 1, 1), 3.0), np.ones(1)), Linear(np.ones(1), np.ones(1))
    total = left + right
    assert isinstance(total, Linear) and total.kernel.item() == 4.0 and total.bias.item() == 2.0
    assert left.minus(right).kernel.item() == 2.0
    with pytest.raises(TypeError):
        left + (1, 2)  # type: ignore[operator]


def test_relative_change() -> None:
    assert relative_change(np.array([1.0, -4.0]), np.array([1.0, -3.0])) == 0.25
