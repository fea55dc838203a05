"""Labelled pictures for the notebooks, from folders, archives and drawn shapes."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.notebook_data import labelled_pictures, shape_pictures

pytestmark = pytest.mark.once


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, red and blue; three pictures each to train on, one to test."""
    root = tmp_path / "set"
    for split, count in (("train", 3), ("validation", 1)):
        for name in ("red", "blue"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (20, 10), name).save(root / split / name / f"{i}.png")
        (root / split / "red" / "notes.txt").write_text("not a picture")
    return root


def packed(folder: Path, kind: str) -> Path:
    """The folder itself, or as an archive beside it."""
    if kind == "folder":
        return folder
    archive = folder.with_suffix(f".{kind}")
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in folder.rglob("*.*"):
                file.write(path, path.relative_to(folder))
    else:
        with tarfile.open(archive, "w") as tar:
            tar.add(folder, "set")
    return archive


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_reads_classes(folder: Path, kind: str) -> None:
    source = packed(folder, kind)
    train, test = (labelled_pictures(source, split, 16) for split in ("train", "test"))
    assert train.names == test.names == ("blue", "red")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and test.labels.tolist() == [0, 1]
    assert train.images.shape == (6, 16, 16, 3) and train.images.dtype == np.uint8
    assert train.images[0, 8, 8].tolist() == [0, 0, 255]
    assert train.images[0, 0, 0].tolist() == [0, 0, 0]  # padded to a square


def test_limit_draws_but_keeps_the_classes(folder: Path) -> None:
    few = labelled_pictures(folder, "train", 16, limit=2)
    assert len(few.images) == len(few.labels) == 2 and few.names == ("blue", "red")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no train/CLASS"):
        labelled_pictures(tmp_path, "train")


def test_shapes_are_fixed_by_seed_and_split() -> None:
    first, again = (shape_pictures(4, "train", 24) for _ in range(2))
    other = shape_pictures(4, "test", 24)
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, other.images)
    assert first.labels.shape == (4,) and max(first.labels) < len(first.names)
