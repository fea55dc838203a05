"""Drawings and words by another renderer: whole, readable, with the questions of their own sets.

What draws needs skia-python; what draws emoji needs the raw downloads, in DEMO_MODEL_WORK.
"""

from __future__ import annotations

import io
import os
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recipes.demo.benchmark import word_items
from recipes.demo.draw.fetch import is_complete
from recipes.demo.draw.records import DemoData
from recipes.demo.elsewhere import (
    GREYS,
    SIDES,
    EmptyDrawingError,
    build,
    drawing_items,
    frame,
    ground,
    put,
    render_svg,
    render_word,
    trimmed,
    word_pictures,
)

pytestmark = pytest.mark.once
WORK = os.environ.get("DEMO_MODEL_WORK", "")
DISC = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8" width="8" height="8">'
    '<circle cx="4" cy="4" r="2" fill="#ff0000"/></svg>'
)


def test_frames_have_many_shapes() -> None:
    rng = np.random.default_rng(0)
    frames = [frame(rng) for _ in range(200)]
    assert all(SIDES[0] <= longer <= SIDES[1] and longer >= shorter for longer, shorter in frames)
    assert min(shorter / longer for longer, shorter in frames) < 0.7


@pytest.mark.parametrize("dark", [True, False])
def test_grounds_are_dark_or_light(dark: bool) -> None:
    paper = ground(np.random.default_rng(0), 90, 60, dark)
    assert paper.shape == (60, 90, 3)
    assert (paper @ GREYS).mean() < 70 if dark else (paper @ GREYS).mean() > 150


def test_a_drawing_is_put_whole() -> None:
    red = np.zeros((20, 30, 4), np.uint8)
    red[...] = (255, 0, 0, 255)
    for seed in range(20):
        image = np.asarray(put(np.random.default_rng(seed), red, 50, 40, False), int)
        assert image.shape == (40, 50, 3)
        assert (image == (255, 0, 0)).all(-1).sum() == 600


def test_what_is_half_there_shows_the_ground() -> None:
    grey = np.full((40, 50, 4), 128, np.uint8)
    grey[..., :3] = 0
    image = np.asarray(put(np.random.default_rng(0), grey, 50, 40, False), float)
    assert 70 < image.mean() < 130


def test_nothing_drawn_is_told() -> None:
    with pytest.raises(EmptyDrawingError):
        trimmed(np.zeros((4, 4, 4), np.uint8))


def test_without_skia_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skia", None)
    with pytest.raises(ModuleNotFoundError, match="pip install skia-python"):
        build(DemoData(None), tmp_path)


def test_svg_is_drawn_and_trimmed() -> None:
    pytest.importorskip("skia")
    rgba = render_svg(DISC, 80)
    assert abs(rgba.shape[0] - 40) <= 2 and abs(rgba.shape[1] - 40) <= 2
    assert rgba[20, 20].tolist() == [255, 0, 0, 255]


def test_words_are_as_wide_as_asked() -> None:
    pytest.importorskip("skia")
    for font in ("DejaVuSans", "cmr10", "DejaVuSans-Oblique"):
        assert render_word("lemon", font, 200).shape[1] == pytest.approx(200, rel=0.12)


def test_word_pictures_ask_as_their_own_set() -> None:
    pytest.importorskip("skia")
    data = DemoData(None, upper_words=True)
    own = [turns for _, turns in word_items(data, 8)]
    made = list(word_pictures(data, 8))
    assert [turns for _, turns in made] == own
    pictures = [Image.open(io.BytesIO(data)) for data, _ in made if isinstance(data, bytes)]
    assert len(pictures) == 8 and all(p.format == "JPEG" for p in pictures)
    assert all(np.asarray(p.convert("L"), float).std() > 5 for p in pictures)


@pytest.mark.skipif(
    not WORK or not is_complete(Path(WORK)), reason="DEMO_MODEL_WORK names no raw downloads"
)
def test_drawings_ask_as_their_own_set() -> None:
    pytest.importorskip("skia")
    made = list(islice(drawing_items(DemoData(WORK), "emojione"), 5))
    assert all(turns[0][:2] == ("name", "what is this?") for _, turns in made)
    assert len({turns[0][2] for _, turns in made}) == 5
