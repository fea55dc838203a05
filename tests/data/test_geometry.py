"""Padding, cropping and resizing: where the pixels go, and that strips change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dl_techniques.data.geometry import (
    center_crop,
    crop_and_resize,
    interpolation_names,
    pad_and_resize,
    pad_to_square,
    resize,
    resize_shortest_edge,
)

pytestmark = pytest.mark.once


def noise(height: int = 6, width: int = 9, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype="uint8")


@pytest.mark.parametrize("interpolation", interpolation_names())
@pytest.mark.parametrize("shape", [(50, 333), (333, 50), (1, 300), (300, 1), (41, 40)])
def test_strips_equal_the_whole_square(shape: Any, interpolation: Any) -> None:
    image = noise(*shape)
    for color in ((0, 0, 0), (122, 116, 104)):
        for size in (7, 64, 400):
            whole = resize(pad_to_square(image, color), size, size, interpolation)
            strips = pad_and_resize(image, size, color, interpolation, max_whole_square=1000)
            np.testing.assert_array_equal(strips, whole)


@pytest.mark.parametrize("shape", [(10, 20000, 3), (20000, 10, 3)])
def test_very_long_pictures(shape: Any) -> None:
    image = np.full(shape, 255, "uint8")
    for make in (pad_and_resize, crop_and_resize):
        made = make(image, 32)
        assert made.shape == (32, 32, 3) and made[15, 15].max() > 0
    assert pad_and_resize(image, 32)[0, 0].max() == 0


def test_padding_and_cropping_positions() -> None:
    image = noise(2, 5)
    square = pad_to_square(image, (1, 2, 3))
    np.testing.assert_array_equal(square[1:3], image)  # floor((5 - 2) / 2) rows above
    assert (square[0] == [1, 2, 3]).all() and (square[3:] == [1, 2, 3]).all()
    np.testing.assert_array_equal(center_crop(image, 2, 2), image[:, 1:3])
    assert resize_shortest_edge(noise(7, 10), 5).shape == (5, 7, 3)
    assert resize_shortest_edge(noise(10, 7), 5).shape == (7, 5, 3)
    with pytest.raises(ValueError, match="resize it first"):
        center_crop(image, 3, 3)
