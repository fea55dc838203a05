"""The exact GELU."""

from __future__ import annotations

import math

import keras
import numpy as np

from dl_techniques.layers.activations import gelu, get_activation, serialize_activation
from tests.helpers import numbers, relative_difference


def test_gelu_is_the_exact_one() -> None:
    x = np.linspace(-5, 5, 101).astype("float32")
    expected = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()])
    assert relative_difference(gelu(keras.ops.convert_to_tensor(x)), expected) < 1e-6
    assert np.abs(numbers(keras.ops.gelu(x, approximate=True)) - expected).max() > 1e-4


def test_gelu_keeps_half_precision() -> None:
    x = keras.ops.ones((2, 3), "bfloat16")
    assert keras.backend.standardize_dtype(gelu(x).dtype) == "bfloat16"


def test_activations_go_through_their_names() -> None:
    assert get_activation("gelu") is gelu
    assert get_activation(serialize_activation(gelu)) is gelu
    relu = get_activation("relu")
    assert get_activation(serialize_activation(relu)) is relu
    linear = get_activation(None)
    assert serialize_activation(linear) == "linear"


def test_gelu_is_registered() -> None:
    layer = keras.layers.Dense(2, activation=gelu)
    assert keras.layers.Dense.from_config(layer.get_config()).activation is gelu
