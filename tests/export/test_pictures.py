"""Which pictures are compared on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dl_techniques.data.images import load_image
from dl_techniques.errors import ExportError
from dl_techniques.export.pictures import (
    DRAWN,
    PHOTOGRAPHS,
    compared_on,
    drawn_pictures,
    picture_files,
    shipped_photographs,
)
from tests.export.small_exports import photos

pytestmark = pytest.mark.once


def test_drawn_pictures_are_the_same_each_time_and_differ_from_each_other() -> None:
    first, again = list(drawn_pictures(64)), list(drawn_pictures(64))
    assert len(first) == DRAWN
    for picture, same in zip(first, again, strict=True):
        assert picture.dtype == np.uint8 and picture.shape == (48, 64, 3)
        assert picture.std() > 20
        np.testing.assert_array_equal(picture, same)
    means = [picture.astype(float).mean(axis=(0, 1)) for picture in first]
    assert all(np.abs(a - b).max() > 5 for i, a in enumerate(means) for b in means[:i])


def test_photographs_are_shipped_credited_and_small() -> None:
    files = shipped_photographs()
    assert len(files) == 8 and sum(path.stat().st_size for path in files) < 300_000
    credits = (Path(__file__).parents[2] / "NOTICE").read_text(encoding="utf-8")
    assert all(f"{path.name}: COCO val2017" in credits for path in files)
    assert {path.parent for path in files} == {PHOTOGRAPHS}
    shapes = {load_image(path).shape[-1] for path in files}
    assert shapes == {3}


def test_reports_say_what_was_compared() -> None:
    assert "8 photographs that come" in compared_on(None, 8) and "--pictures" in compared_on(
        None, 8
    )
    assert compared_on("mine", 3) == "compared on 3 pictures of mine"


def test_files_of_pictures_are_found_and_spread(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 5)
    assert [p.name for p in picture_files(folder, 9)] == [f"{i}.png" for i in range(5)]
    assert [p.name for p in picture_files(folder, 3)] == ["0.png", "2.png", "4.png"]


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is no folder"):
        picture_files(tmp_path / "none", 1)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ExportError, match="holds no pictures.*.png"):
        picture_files(tmp_path, 1)
