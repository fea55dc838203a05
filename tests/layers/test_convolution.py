"""Dense and depthwise convolutions: symmetric padding, and the same numbers as Keras' own."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques import kernels
from dl_techniques.kernels import pad_symmetrically
from dl_techniques.layers.convolution import Conv, DepthwiseConv
from tests.helpers import (
    check_layer,
    numbers,
    numpy_convolution,
    random_array,
    randomize,
    relative_difference,
)

SHAPES = [(2, 8, 8, 3), (1, 7, 5, 3), (1, 6, 9, 3)]


def padded(x: np.ndarray, size: int) -> np.ndarray:
    """`size // 2` zeros on all four sides."""
    margin = size // 2
    return np.pad(x, [(0, 0), (margin, margin), (margin, margin), (0, 0)])


def depthwise_pair(size: int, stride: int, multiplier: int, **options: Any) -> tuple[Any, Any]:
    """Our layer and Keras' with the same random weights."""
    ours = DepthwiseConv(size, stride, multiplier, **options)
    keras_own = keras.layers.DepthwiseConv2D(
        size, stride, "valid", multiplier, data_format="channels_last", **options
    )
    for layer in (ours, keras_own):
        layer.build((None, None, None, 3))
        randomize(layer)
    return ours, keras_own


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_equals_keras(
    shape: tuple[int, ...], size: int, stride: int, multiplier: int
) -> None:
    ours, keras_own = depthwise_pair(size, stride, multiplier)
    x = random_array(*shape)
    assert relative_difference(ours(x), keras_own(padded(x, size))) < 1e-6


def test_depthwise_equals_plain_sum() -> None:
    ours, _ = depthwise_pair(7, 2, 2)
    x = random_array(1, 6, 9, 3)
    expected = numpy_convolution(x, numbers(ours.kernel), 2, depthwise=True) + numbers(ours.bias)
    assert relative_difference(ours(x), expected) < 1e-6


def test_depthwise_without_bias_and_with_activation() -> None:
    ours, keras_own = depthwise_pair(3, 1, 1, use_bias=False, activation="relu")
    x = random_array(1, 7, 5, 3)
    assert len(ours.weights) == 1
    assert numbers(ours(x)).min() == 0.0
    assert relative_difference(ours(x), keras_own(padded(x, 3))) < 1e-6


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
def test_depthwise_in_half_precision(dtype: str) -> None:
    ours, keras_own = depthwise_pair(7, 1, 2, dtype=dtype)
    x = keras.ops.cast(random_array(2, 8, 8, 3), "bfloat16")
    outputs = ours(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    # One rounding to eight bits of mantissa, here or there.
    assert relative_difference(outputs, keras_own(pad_symmetrically(x, 7))) < 2**-7


def test_depthwise_weights_are_those_of_keras() -> None:
    ours, keras_own = depthwise_pair(3, 1, 2)
    assert [(v.name, v.shape) for v in ours.weights] == [
        (v.name, v.shape) for v in keras_own.weights
    ]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("size", "stride"), [(1, 2), (3, 1), (3, 2), (7, 2)])
def test_dense_equals_plain_sum(shape: tuple[int, ...], size: int, stride: int) -> None:
    layer = Conv(4, size, stride)
    layer.build((None, None, None, 3))
    randomize(layer)
    x = random_array(*shape)
    expected = numpy_convolution(x, numbers(layer.kernel), stride) + numbers(layer.bias)
    assert relative_difference(layer(x), expected) < 1e-6


def test_a_strided_point_stays_in_the_middle_of_its_window() -> None:
    # Keras' "same" puts the 1x1 and the 3x3 window on different places of an even map.
    x = random_array(1, 8, 6, 1)
    centre = np.zeros((3, 3, 1, 1), "float32")
    centre[1, 1] = 1.0
    wide, point = Conv(1, 3, 2, use_bias=False), Conv(1, 1, 2, use_bias=False)
    for layer, kernel in ((wide, centre), (point, centre[1:2, 1:2])):
        layer.build(x.shape)
        layer.kernel.assign(kernel)
    np.testing.assert_array_equal(numbers(wide(x)), numbers(point(x)))
    np.testing.assert_array_equal(numbers(point(x)), x[:, ::2, ::2])


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow's kernels")
def test_no_strided_point_reaches_tensorflow() -> None:
    # oneDNN's gradient of one writes beyond its memory, which ends the process sooner or later.
    import tensorflow as tf

    layer = Conv(8, 1, strides=2)
    layer.build((None, None, None, 3))
    graph = tf.function(layer).get_concrete_function(tf.TensorSpec((4, 64, 64, 3))).graph
    strides = [op.get_attr("strides") for op in graph.get_operations() if op.type == "Conv2D"]
    assert strides == [[1, 1, 1, 1]]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="of PyTorch's kernels")
def test_no_strided_point_reaches_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    strides: list[Any] = []
    convolution = torch.nn.functional.conv2d

    def recorded(x: Any, kernel: Any, bias: Any, stride: int, *rest: Any) -> Any:
        strides.append(stride)
        return convolution(x, kernel, bias, stride, *rest)

    monkeypatch.setattr(torch.nn.functional, "conv2d", recorded)
    with kernels.use("fastest"):
        assert Conv(8, 1, strides=2)(random_array(4, 64, 64, 3)).shape == (4, 32, 32, 8)
    assert not strides  # a matrix product of every other pixel


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize(
    "layer", [lambda: Conv(4, 3, 2), lambda: DepthwiseConv(3, 2, 2), lambda: DepthwiseConv(7)]
)
def test_layer_contract(layer: Any, shape: tuple[int, ...]) -> None:
    check_layer(layer(), shape)


@pytest.mark.parametrize("size", [0, 2, -1])
def test_even_kernels_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"odd.*got {size}"):
        Conv(4, size)
    with pytest.raises(ValueError, match=f"odd.*got {size}"):
        DepthwiseConv(size)


def test_padding_is_nothing_for_a_point() -> None:
    x = random_array(1, 2, 2, 1)
    assert pad_symmetrically(x, 1) is x
    np.testing.assert_array_equal(numbers(pad_symmetrically(x, 5)), padded(x, 5))
