"""Class folders: splits, sizes, statistics, batches, bad folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dl_techniques.data.labelled import Batches, Labelled, class_files, read_labelled
from dl_techniques.data.preprocessing import Preprocessing
from dl_techniques.errors import CompressionError, ImageError
from tests.compression.class_folders import COLOURS, write_classes

PLAIN = Preprocessing(size=32)


def test_every_fifth_picture_is_held_out(tmp_path: Path) -> None:
    train, held_out = read_labelled(write_classes(tmp_path / "all"), PLAIN)
    assert train.pictures.shape == (24, 32, 32, 3) and train.pictures.dtype == np.uint8
    assert held_out.pictures.shape == (6, 32, 32, 3)
    assert train.classes == held_out.classes == tuple(COLOURS)
    np.testing.assert_array_equal(held_out.labels, [0, 0, 1, 1, 2, 2])
    for label, colour in enumerate(COLOURS.values()):
        mean = train.pictures[train.labels == label].mean((0, 1, 2))
        np.testing.assert_allclose(mean, colour, atol=8)
    together = {p.tobytes() for p in train.pictures} & {p.tobytes() for p in held_out.pictures}
    assert not together


@pytest.mark.parametrize("name", ["test", "val", "validation"])
def test_split_folders_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    write_classes(tmp_path / "train", 4)
    write_classes(tmp_path / name, 2, seed=1)
    read = []
    train, held_out = read_labelled(tmp_path, PLAIN, 3, on_picture=lambda: read.append(1))
    assert (len(train.labels), len(held_out.labels)) == (9, 6)
    assert len(read) == 15


def test_pictures_are_cropped_as_the_network_wants(tmp_path: Path) -> None:
    write_classes(tmp_path, 5, side=64)
    train, _ = read_labelled(tmp_path, Preprocessing(size=24, crop_fraction=0.5))
    assert train.pictures.shape[1:] == (24, 24, 3)


def test_inputs_are_normalized() -> None:
    pictures = np.full((1, 2, 2, 3), 51, "uint8")
    statistics = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.1))
    inputs = Labelled(pictures, np.zeros(1, "int32"), ("a",)).inputs(statistics)
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs[0, 0, 0], [0.2, 0.0, -1.0], atol=1e-6)


def test_batches_cover_an_epoch_and_change() -> None:
    pictures = np.arange(8, dtype="uint8")[:, None, None, None] * np.ones((1, 16, 16, 3), "uint8")
    batches = Batches(pictures, np.arange(8), 4, seed=3)
    seen = [batches[i] for i in range(len(batches))]
    assert sorted(np.concatenate([labels for _, labels in seen])) == list(range(8))
    for inputs, labels in seen:
        np.testing.assert_allclose(inputs[:, 0, 0, 0], labels / 255.0, atol=1e-7)
    first = batches.order.copy()
    batches.on_epoch_end()
    assert not np.array_equal(first, batches.order)


def test_a_batch_is_a_function_of_its_place() -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (12, 16, 16, 3), dtype="uint8")
    one, other = (Batches(pictures, np.arange(12), 4, seed=5) for _ in range(2))
    places = [(epoch, index) for epoch in range(2) for index in range(3)]
    there = [one.batch(*place) for place in places]
    back = [other.batch(*place) for place in reversed(places)][::-1]
    for ours, theirs in zip(there, back, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(there[0][1], there[3][1])
    one.on_epoch_end()
    np.testing.assert_array_equal(one[2][0], there[5][0])


def test_augmentation_shifts_and_mirrors_and_can_be_left_out() -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (16, 16, 16, 3), dtype="uint8")
    labels = np.arange(16)
    plain, rows = Batches(pictures, labels, 16, augment=False)[0]
    np.testing.assert_array_equal(plain, pictures[rows].astype("float32") / 255)
    moved, rows = Batches(pictures, labels, 16)[0]
    expected = pictures[rows].astype("float32") / 255
    unmoved = [np.array_equal(a, b) for a, b in zip(moved, expected, strict=True)]
    assert sum(unmoved) < 4
    # What is moved is the same picture: most of its colours are there.
    assert np.abs(moved.mean((1, 2)) - expected.mean((1, 2))).max() < 0.08


def test_too_few_pictures_for_a_batch_are_refused() -> None:
    with pytest.raises(CompressionError, match="3 pictures to train on make no batch of 4"):
        Batches(np.zeros((3, 8, 8, 3), "uint8"), np.zeros(3, "int32"), 4)


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="is no folder"):
        read_labelled(tmp_path / "none", PLAIN)
    with pytest.raises(CompressionError, match="there are no class folders"):
        class_files(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CompressionError, match="the class folder 'empty' is without pictures"):
        class_files(tmp_path)
    few = write_classes(tmp_path / "few", 3)
    with pytest.raises(CompressionError, match="3 pictures; 5 are needed"):
        read_labelled(few, PLAIN)
    write_classes(tmp_path / "other" / "train", 2)
    write_classes(tmp_path / "other" / "test", 2)
    (tmp_path / "other" / "test" / "red").rename(tmp_path / "other" / "test" / "crimson")
    with pytest.raises(CompressionError, match="differ: crimson, red"):
        read_labelled(tmp_path / "other", PLAIN)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path, 5)
    (tmp_path / "red" / "002.png").write_bytes(b"not a picture")
    with pytest.raises(ImageError, match="002.png"):
        read_labelled(tmp_path, PLAIN)
