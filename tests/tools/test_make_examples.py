"""The shipped example pictures: small, documented, asked about, and made by the tool."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recipes.demo.photos.readers import ARCHIVES
from tools import make_examples as tool

pytestmark = pytest.mark.once

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FILES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".png", ".jpg"))


def test_all_recipes_are_shipped() -> None:
    nowhere = Path("nowhere")
    assert [path.name for path in FILES] == sorted(tool.recipes(nowhere, nowhere, nowhere))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_picture_is_small_whole_and_documented(path: Path) -> None:
    assert path.stat().st_size <= tool.MAX_BYTES
    with Image.open(path) as picture:
        picture.load()
        assert picture.mode == "RGB" and max(picture.size) <= tool.MAX_SIDE
        assert not picture.getexif()
    assert f"| `{path.name}` |" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


def test_questions_name_pictures() -> None:
    lines = (EXAMPLES / "questions.txt").read_text(encoding="utf-8").splitlines()
    assert lines
    for line in lines:
        picture, question = line.split("|")
        assert (EXAMPLES / picture) in FILES and question.strip()


def test_what_needs_no_download_is_made_again() -> None:
    with Image.open(EXAMPLES / "shapes.png") as shipped:
        made = tool.scene(None, tool.SHAPES_SEED, shipped.width)
        difference = np.abs(np.asarray(shipped, int) - np.asarray(made, int))
    # another version of Pillow may round otherwise
    assert np.mean(difference > 2) < 0.01


def test_word_is_held_out() -> None:
    assert tool.word().size == (tool.WORD_SIZE, tool.WORD_SIZE)
    with pytest.raises(ValueError, match="'house' is trained on"):
        tool.word("house")


def test_large_photo_is_shrunk_and_noise_is_refused() -> None:
    large = Image.new("RGB", (1200, 300), "teal")
    with Image.open(io.BytesIO(tool.encoded(large, ".jpg"))) as small:
        assert small.size == (512, 128)
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="more than 100000 bytes"):
        tool.encoded(Image.fromarray(noise), ".png")


def test_missing_photo_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / ARCHIVES["coco"], "w") as archive:
        archive.writestr("coco_ccby/photos/other.jpg", b"")
    with pytest.raises(FileNotFoundError, match="have no a.jpg"):
        tool.taken(tmp_path, "coco", "a.jpg")
