"""The resize inside networks: Pillow's pixels on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dl_techniques.layers.picture_resize import PictureResize, PixelScale, resize_matrix
from tests.helpers import numbers, rebuilt


@pytest.mark.parametrize(("before", "after"), [((224, 224), (64, 64)), ((50, 70), (33, 91))])
def test_the_pixels_are_pillows(before: tuple[int, int], after: tuple[int, int]) -> None:
    """In Pillow's float mode, which rounds nothing."""
    picture = np.random.default_rng(0).random((*before, 3)).astype("float32")
    layer = PictureResize(after)
    got = numbers(layer(picture[None]))[0]
    for colour in range(3):
        wide = Image.fromarray(picture[..., colour])
        expected = np.asarray(wide.resize(after[::-1], Image.Resampling.BICUBIC))
        np.testing.assert_allclose(got[..., colour], expected, atol=2e-6)


def test_a_plain_picture_stays_plain() -> None:
    for before, after in ((224, 64), (7, 20), (5, 5)):
        np.testing.assert_allclose(resize_matrix(before, after).sum(1), 1.0, atol=1e-6)
    np.testing.assert_allclose(resize_matrix(5, 5), np.eye(5), atol=1e-7)


def test_it_is_saved_and_refuses_open_sizes() -> None:
    layer = PictureResize((3, 4))
    picture = np.random.default_rng(1).random((2, 9, 8, 3)).astype("float32")
    expected = numbers(layer(picture))
    np.testing.assert_array_equal(numbers(rebuilt(layer, (None, 9, 8, 3))(picture)), expected)
    with pytest.raises(ValueError, match="pictures of one size"):
        PictureResize((3, 4)).build((None, None, 8, 3))


def test_the_scale_of_pixels() -> None:
    mean, std = (0.1, 0.5, 0.9), (0.25, 0.5, 2.0)
    picture = np.random.default_rng(2).random((2, 4, 5, 3)).astype("float32")
    layer = PixelScale(mean, std)
    np.testing.assert_allclose(numbers(layer(picture)), (picture - mean) / std, atol=1e-5)
    np.testing.assert_array_equal(numbers(rebuilt(layer)(picture)), numbers(layer(picture)))
