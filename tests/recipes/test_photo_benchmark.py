"""The evaluation sets of photographs hold what they say, and nothing that is trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dl_techniques.evaluation import load_set
from dl_techniques.evaluation.manner import is_right, manner
from recipes.demo.photo_benchmark import SETS, PhotoData, build, things
from recipes.demo.photos.nanodet import Detection, Seen, write_labels
from recipes.demo.photos.readers import SPLITS, Annotation, read_photos
from recipes.demo.photos.wordings import HELD_CLOTHES, HELD_NAME, bare
from tests.recipes.photos.archives import write_archives

pytestmark = pytest.mark.once


@pytest.fixture
def data(tmp_path: Path) -> PhotoData:
    """Tiny archives; the detector sees a person on the first of each two pictures, a dog on all."""
    folder = write_archives(tmp_path)
    labels = {}
    for name in ("caltech", "background", "grocery", "clothing", "coco"):
        for split in SPLITS[name == "coco" :]:
            for number, photo in enumerate(read_photos(folder, name, split)):
                found = [Detection("dog", 0.5, (0, 0, 1, 1))]
                if number % 2 == 0:
                    found.append(Detection("person", 0.9, (0, 0, 1, 1)))
                labels[photo.name] = Seen(tuple(found))
    write_labels(tmp_path / "labels.json", labels)
    return PhotoData(folder, tmp_path / "labels.json")


@pytest.fixture
def out(data: PhotoData, tmp_path: Path) -> Path:
    """All sets."""
    build(data, tmp_path / "sets")
    return tmp_path / "sets"


def test_every_set_is_written_and_read(out: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == sorted(SETS)
    for path in out.iterdir():
        records = load_set(path).records
        assert all(record.baseline_question_only for record in records)
        sides = [max(Image.open(record.image).size) for record in records]
        assert max(sides) <= 320
        assert all(is_right(record.answer, record) for record in records)


def test_names_are_scored_by_all_accepted_ones(out: Path) -> None:
    records = load_set(out / "photos_caltech").records
    planes = [record for record in records if record.answer == "airplane"]
    assert len(records) == 8 and len(planes) == 2
    assert is_right("A photo of a plane.", planes[0]) and not is_right("ship", planes[0])


def test_wordings_are_those_that_are_held_out_for_each_photograph(out: Path) -> None:
    for name, held, count in (
        ("photos_caltech_wordings", HELD_NAME, 8),
        ("photos_clothing_wordings", HELD_CLOTHES, 2),
    ):
        records = load_set(out / name).records
        assert len(records) == 5 * count
        assert {bare(r.question) for r in records[:5]} == {bare(wording) for wording in held}
        assert len({record.image for record in records[:5]}) == 1


def test_persons_are_there_by_class_annotation_or_detector(data: PhotoData, out: Path) -> None:
    records = load_set(out / "photos_person").records
    # both faces, both CC-BY photographs, and what the detector finds nobody on: one airplane, one
    # dog; a buddha is neither
    assert sorted(record.answer for record in records) == ["no", "no", "no", "yes", "yes", "yes"]
    even = load_set(out / "photos_person_even").records
    assert [record.answer for record in even] == ["yes", "no"] * (len(even) // 2)


def test_nothing_is_denied_that_the_detector_sees(out: Path) -> None:
    records = load_set(out / "photos_is_there").records
    assert {record.answer for record in records} == {"yes", "no"}
    assert not [r for r in records if r.answer == "no" and "dog" in r.question]


@pytest.mark.parametrize("name", ["photos_background", "unknown_noise", "unknown_drawings"])
def test_what_has_no_name_is_to_be_refused(out: Path, name: str) -> None:
    records = load_set(out / name).records
    assert all(record.refusal and manner(record.answer) == "refused" for record in records)
    assert len({np.asarray(Image.open(record.image)).tobytes() for record in records}) > 1


def test_the_measured_photographs_are_not_trained_on(data: PhotoData) -> None:
    for name in ("caltech", "background", "grocery", "clothing"):
        splits = [{p.name for p in read_photos(data.folder, name, split)} for split in SPLITS]
        assert not splits[0] & splits[1]
        assert {photo.name for photo in data.photos(name)} == splits[1]


def test_things_come_from_labels_and_captions() -> None:
    told = things(Annotation(("Two men ride on geese.", "A huge bus!"), ("couch",), ""))
    assert {"goose", "person", "bus", "sofa", "couch"} <= set(told)
    assert not {"dog", "face"} & set(told)


def test_an_unknown_set_and_missing_labels_are_told(data: PhotoData, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'photos_of_cats' is unknown"):
        build(data, tmp_path / "sets", ["photos_of_cats"])
    data.labels.unlink()
    with pytest.raises(FileNotFoundError, match="no labels of the detector"):
        build(PhotoData(data.folder, data.labels), tmp_path / "sets", ["photos_person"])
