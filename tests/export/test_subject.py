"""The pictures that both sides see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dl_techniques.errors import ImageError
from dl_techniques.export.subject import make_subject, outputs_of
from tests.export.small_exports import COLOURS, photos, small, subject_of, tiny
from tests.helpers import TOLERANCE, relative_difference
from tests.models.vision.fast_vlm.small_network import SIZE
from tests.models.vlm.fast_vlm.small_model import make_model


def test_reference_and_copy_agree_on_the_shipped_photographs() -> None:
    subject = subject_of(small())
    inputs = subject.inputs(None, 4)
    assert {image.shape for image in inputs} == {(1, SIZE, SIZE, 3)}
    assert all(
        image.dtype == np.float32 and 0 <= image.min() < image.max() <= 1 for image in inputs
    )
    expected = subject.expected(inputs)
    got = outputs_of(subject.deployed, inputs)
    assert expected["logits"].shape == (8, 5)
    assert relative_difference(got["logits"], expected["logits"]) < TOLERANCE
    assert subject.deployed.count_params() < subject.reference.count_params()


def test_the_reference_normalizes_as_the_source_says() -> None:
    model = small()
    subject = subject_of(model)
    (image,) = subject.inputs(None, 1)[:1]
    scaled = ((image - COLOURS["mean"]) / COLOURS["std"]).astype("float32")
    assert relative_difference(subject.expected([image])["logits"], model(scaled)) < TOLERANCE


def test_photos_are_cropped_for_classifiers(tmp_path: Path) -> None:
    subject = make_subject(
        small(preprocessing={**COLOURS, "crop_fraction": 0.5}), "encoder", 40, True
    )
    inputs = subject.inputs(photos(tmp_path / "photos"), 8)
    assert [image.shape for image in inputs] == [(1, 40, 40, 3)] * 2
    board = np.zeros((80, 80, 3), "uint8")
    board[20:60, 20:60] = 255  # the middle half, which is all that a crop of one half keeps
    assert subject.to_bytes(board).min() > 200


def test_photos_are_padded_for_a_vision_language_model() -> None:
    model = make_model()
    subject = subject_of(model, "encoder")
    wide = np.full((10, 40, 3), 255, "uint8")
    got = subject.to_bytes(wide)
    np.testing.assert_array_equal(got, model.preprocessor.image_converter.to_uint8(wide))
    assert got[0].max() == 0 and got[SIZE // 2].min() == 255


def test_float16_arithmetic_is_close_and_not_equal() -> None:
    subject = subject_of(tiny())
    inputs = subject.inputs(None, 4)
    difference = relative_difference(
        outputs_of(subject.in_float16(), inputs)["logits"], subject.expected(inputs)["logits"]
    )
    assert 1e-6 < difference < 0.02


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ImageError, match="broken.png"):
        subject_of(tiny()).inputs(tmp_path, 1)
