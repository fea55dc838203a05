"""Finer maps beside the last one: every place keeps its own channels, nothing is averaged."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dl_techniques.layers.multi_scale import MultiScaleFeatures
from tests.helpers import Array, numbers, random_array, rebuilt


def plain(*maps: Array) -> Array:
    """Place by place."""
    coarse = maps[-1]
    batch, height, width, _ = coarse.shape
    places = []
    for y, x in np.ndindex(height, width):
        parts = [coarse[:, y, x]]
        for power, fine in enumerate(maps[-2::-1], start=1):
            for i, j in np.ndindex(2**power, 2**power):
                row, column = 2**power * y + i, 2**power * x + j
                inside = row < fine.shape[1] and column < fine.shape[2]
                parts.append(fine[:, row, column] if inside else np.zeros_like(fine[:, 0, 0]))
        places.append(np.concatenate(parts, -1))
    return np.stack(places, 1).reshape(batch, height, width, -1)


@pytest.mark.parametrize(("height", "width"), [(8, 4), (7, 8), (9, 5)])
def test_a_place_gets_what_it_covers(height: int, width: int) -> None:
    sizes = [(height, width)]
    for _ in range(2):
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    channels = (3, 2, 5)
    maps = [random_array(2, *size, c) for size, c in zip(sizes, channels, strict=True)]
    for some in (maps, maps[1:], maps[2:]):
        layer = MultiScaleFeatures()
        expected = plain(*some)
        np.testing.assert_array_equal(numbers(layer(some)), expected)
        assert layer.compute_output_shape([x.shape for x in some]) == expected.shape
    inputs = [keras.Input((None, None, c)) for c in channels]
    model = keras.Model(inputs, MultiScaleFeatures()(inputs))
    assert model.output_shape == (None, None, None, 5 + 4 * 2 + 16 * 3)
    np.testing.assert_array_equal(model.predict(maps, verbose=0), plain(*maps))


def test_config_and_precision() -> None:
    maps = [random_array(1, 4, 4, 2), random_array(1, 2, 2, 3)]
    layer = MultiScaleFeatures(name="scales", dtype="mixed_bfloat16")
    copy = rebuilt(layer, [x.shape for x in maps])  # type: ignore[arg-type]
    assert copy.get_config() == layer.get_config() and not layer.weights
    assert keras.backend.standardize_dtype(copy(maps).dtype) == "bfloat16"


@pytest.mark.parametrize("fine", [(4, 6), (2, 4), (8, 8)])
def test_sizes_that_do_not_halve(fine: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="half as many along a side"):
        MultiScaleFeatures()([np.zeros((1, *fine, 2)), np.zeros((1, 2, 2, 2))])
