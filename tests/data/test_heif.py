"""HEIC: read where pillow-heif is there, named where it is not."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from dl_techniques.data.heif import is_heif
from dl_techniques.data.images import load_image
from dl_techniques.errors import ImageError

pytestmark = pytest.mark.once


def heic(picture: Image.Image, **options: object) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture).save(buffer, quality=95, **options)
    return buffer.getvalue()


@pytest.fixture
def two_halves() -> Image.Image:
    """Red on the left, blue on the right; wider than high."""
    pixels = np.zeros((40, 60, 3), "uint8")
    pixels[:, :30, 0], pixels[:, 30:, 2] = 250, 250
    return Image.fromarray(pixels)


def test_the_pixels(two_halves: Image.Image) -> None:
    data = heic(two_halves)
    read = load_image(data)
    assert is_heif(data) and read.shape == (40, 60, 3) and read.dtype == np.uint8
    assert np.abs(read.astype(int) - np.asarray(two_halves)).mean() < 3


def test_a_phone_held_upright(two_halves: Image.Image) -> None:
    """The rotation is applied once, whoever does it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    read = load_image(heic(two_halves, exif=exif.tobytes()))
    assert read.shape == (60, 40, 3)
    assert read[5, 20, 0] > 200 and read[55, 20, 2] > 200


def test_limits_and_damage(two_halves: Image.Image) -> None:
    data = heic(two_halves)
    with pytest.raises(ImageError, match="2400 pixels, more than max_pixels=100"):
        load_image(data, max_pixels=100)
    for cut in (20, len(data) // 2, len(data) - 100):
        with pytest.raises(ImageError, match="^Picture <.* bytes> "):
            load_image(data[:cut])


def test_a_hint_where_it_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"is HEIC, which needs pillow-heif: pip install .*heic"):
        load_image(b"\0\0\0\x18ftypheic" + bytes(40))
