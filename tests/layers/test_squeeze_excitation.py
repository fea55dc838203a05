"""Squeeze-and-excitation."""

from __future__ import annotations

import numpy as np
import pytest

from dl_techniques.layers.squeeze_excitation import SqueezeExcitation, reduced_width
from tests.helpers import check_layer, numbers, random_array, randomize, relative_difference


def test_equals_its_definition() -> None:
    layer, x = SqueezeExcitation(0.5), random_array(2, 4, 3, 8)
    layer.build(x.shape)
    randomize(layer)
    weights = [numbers(v) for v in layer.weights]
    hidden = np.maximum(x.mean((1, 2)) @ weights[0] + weights[1], 0)
    gate = 1 / (1 + np.exp(-(hidden @ weights[2] + weights[3])))
    assert relative_difference(layer(x), x * gate[:, None, None]) < 1e-6
    assert [v.shape for v in weights] == [(8, 4), (4,), (4, 8), (8,)]


def test_layer_contract() -> None:
    check_layer(SqueezeExcitation(0.25, divisor=2), (2, 5, 4, 8))


@pytest.mark.parametrize(
    ("channels", "ratio", "divisor", "width"),
    [(64, 1 / 16, 1, 4), (8, 1 / 16, 1, 1), (192, 0.25, 8, 48), (48, 0.25, 8, 16), (8, 0.25, 8, 8)],
)
def test_width_of_the_bottleneck(channels: int, ratio: float, divisor: int, width: int) -> None:
    assert reduced_width(channels, ratio, divisor) == width
