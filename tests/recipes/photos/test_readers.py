"""Photographs are read in the order of their names, and what is missing is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recipes.demo.photos.names import class_names
from recipes.demo.photos.readers import ARCHIVES, SPLITS, read_annotations, read_photos

pytestmark = pytest.mark.once


@pytest.mark.parametrize("split", SPLITS)
def test_order_labels_and_pictures(folder: Path, split: str) -> None:
    photos = list(read_photos(folder, "caltech", split))
    assert [photo.name for photo in photos] == sorted(photo.name for photo in photos)
    assert [photo.label for photo in photos][::2] == ["Faces", "airplanes", "buddha", "dalmatian"]
    picture = photos[0].load()
    assert (picture.mode, picture.size) == ("RGB", (48, 40))
    assert np.asarray(picture)[0, 0].tolist() != np.asarray(photos[1].load())[0, 0].tolist()


def test_labels_of_the_other_sets(folder: Path) -> None:
    labels = {
        name: [photo.label for photo in read_photos(folder, name, "validation")]
        for name in ARCHIVES
    }
    assert labels["grocery"] == ["Apple", "Carrots"]
    assert labels["clothing"] == ["shoes", "t-shirt"]
    assert labels["coco"] == ["", ""]


def test_background_pictures_are_halved(folder: Path) -> None:
    halves = [{p.name for p in read_photos(folder, "background", split)} for split in SPLITS]
    assert [len(half) for half in halves] == [2, 2]
    assert not halves[0] & halves[1]


def test_annotations_belong_to_the_photographs(folder: Path) -> None:
    annotations = read_annotations(folder)
    photos = [photo.name for photo in read_photos(folder, "coco", "validation")]
    assert list(annotations) == photos
    assert annotations[photos[1]].objects == ("couch", "tv")


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_missing_archive_is_named(folder: Path, name: str) -> None:
    (folder / ARCHIVES[name]).unlink()
    with pytest.raises(FileNotFoundError, match=ARCHIVES[name]):
        next(read_photos(folder, name, "validation"))


def test_unknown_words_are_told(folder: Path) -> None:
    with pytest.raises(ValueError, match="'flowers' are unknown, expected one of"):
        next(read_photos(folder, "flowers", "train"))
    with pytest.raises(ValueError, match="split 'test' is unknown"):
        next(read_photos(folder, "caltech", "test"))
    with pytest.raises(ValueError, match="holds no photographs for coco, train"):
        next(read_photos(folder, "coco", "train"))


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("caltech", (3946, 954)),
        ("background", (100, 99)),
        ("grocery", (1882, 648)),
        ("clothing", (3068, 341)),
    ],
)
def test_every_class_of_the_real_archives_has_a_name(
    real_folder: Path, name: str, counts: tuple[int, int]
) -> None:
    splits = [list(read_photos(real_folder, name, split)) for split in SPLITS]
    assert tuple(len(photos) for photos in splits) == counts
    labels = {photo.label for photos in splits for photo in photos} - {""}
    assert labels == {label for set_name, label in class_names() if set_name == name}


def test_every_object_of_the_real_annotations_has_a_name(real_folder: Path) -> None:
    annotations = read_annotations(real_folder)
    assert len(annotations) == 22
    objects = {name for annotation in annotations.values() for name in annotation.objects}
    assert all(("coco", name) in class_names() for name in objects)
