"""Conditional positional encoding."""

from __future__ import annotations

import pytest

from dl_techniques.layers.positional_encoding import ConditionalPositionalEncoding
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


def test_adds_a_depthwise_convolution() -> None:
    layer, x = ConditionalPositionalEncoding(), random_array(*SHAPE)
    layer.build(SHAPE)
    randomize(layer)
    kernel, bias = (numbers(v) for v in layer.weights)
    expected = x + numpy_convolution(x, kernel, depthwise=True) + bias
    assert relative_difference(layer(x), expected) < 1e-6


@pytest.mark.parametrize("fused", [False, True])
def test_layer_contract(fused: bool) -> None:
    check_layer(ConditionalPositionalEncoding(reparameterized=fused), SHAPE)


def test_forms() -> None:
    check_forms(ConditionalPositionalEncoding(), SHAPE)
