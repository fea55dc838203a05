"""The detector's boxes and labels, and its network where it is at hand."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from recipes.demo.photos import nanodet
from recipes.demo.photos.nanodet import (
    BINS,
    Detection,
    Detector,
    Seen,
    as_parts,
    best_boxes,
    corners,
    overlap,
    read_labels,
    write_labels,
)
from recipes.demo.photos.readers import read_annotations, read_photos

pytestmark = pytest.mark.once


def test_corners_are_the_distances_from_the_middle_of_a_cell() -> None:
    sides = np.full((6, 4, BINS), -50.0)
    for side, steps in enumerate((1, 0, 2, 3)):
        sides[:, side, steps] = 50.0
    boxes = corners(sides.reshape(6, 4 * BINS), 8, 3)
    np.testing.assert_allclose(boxes[0], [4 - 8, 4, 4 + 16, 4 + 24])
    np.testing.assert_allclose(boxes[4], [12 - 8, 12, 12 + 16, 12 + 24])


def test_a_spread_distance_is_its_mean() -> None:
    box = corners(np.zeros((1, 4 * BINS)), 2, 1)[0]
    np.testing.assert_allclose(box, [1 - 7, 1 - 7, 1 + 7, 1 + 7])


def test_of_boxes_that_overlap_the_surest_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30], [0, 0, 10, 10]], float)
    assert best_boxes(boxes, np.array([0.5, 0.9, 0.3, 0.05])) == [1, 2]
    assert best_boxes(boxes, np.zeros(4)) == []


def test_overlap() -> None:
    here = np.array([0.0, 0, 2, 2])
    others = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [2, 2, 3, 3]], float)
    np.testing.assert_allclose(overlap(here, others), [1, 1 / 7, 0])


def test_boxes_are_parts_of_the_picture() -> None:
    assert as_parts(np.array([10, 20, 60, 400]), 100, 200) == (0.1, 0.1, 0.5, 0.9)


def detection(name: str, score: float) -> Detection:
    return Detection(name, score, (0.0, 0.1, 0.5, 0.9))


@pytest.mark.parametrize(
    ("score", "there"), [(0.9, True), (0.45, True), (0.44, None), (0.1, None), (0.09, False)]
)
def test_person(score: float, there: bool | None) -> None:
    assert Seen((detection("person", score),)).person is there
    assert Seen(()).person is False


def test_names_are_everyday_ones() -> None:
    seen = Seen((detection("tv", 0.8), detection("tv", 0.6), detection("couch", 0.2)))
    assert (seen.sure, seen.doubtful) == (("television",), ("television", "sofa"))


def test_labels_come_back_as_they_were(tmp_path: Path) -> None:
    labels = {"a.jpg": Seen((detection("dog", 0.75), detection("person", 0.2))), "b.jpg": Seen(())}
    write_labels(tmp_path / "labels.json", labels)
    assert read_labels(tmp_path / "labels.json") == labels


def test_missing_labels_and_networks_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"python -m recipes\.demo\.photos\.nanodet"):
        read_labels(tmp_path / "labels.json")
    with pytest.raises(FileNotFoundError, match=r"nanodet_m\.param"):
        Detector(tmp_path)


def test_without_ncnn_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in nanodet.FILES:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    monkeypatch.setitem(sys.modules, "ncnn", None)
    with pytest.raises(ModuleNotFoundError, match="pip install ncnn"):
        Detector(tmp_path)


def test_the_real_network_finds_what_people_marked(real_folder: Path) -> None:
    pytest.importorskip("ncnn")
    detector, annotations = Detector(real_folder), read_annotations(real_folder)
    right = wrong = 0
    for photo in read_photos(real_folder, "coco", "validation"):
        found = {d.name for d in detector(photo.load()).objects if d.score >= nanodet.SURE}
        marked = set(annotations[photo.name].objects)
        right, wrong = right + len(found & marked), wrong + len(found - marked)
    assert right >= 25 and wrong <= 4
