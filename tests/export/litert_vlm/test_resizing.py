"""The same model for pictures of another size."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dl_techniques.export.litert_vlm.resizing import at_size
from tests.export.litert_vlm.small_export import MEAN, ROWS, make_model
from tests.models.vlm.fast_vlm.small_model import pictures

pytestmark = pytest.mark.once


def test_its_own_size_is_itself() -> None:
    model = make_model()
    assert at_size(model, 32) is model


def test_another_size() -> None:
    model = make_model()
    larger = at_size(model, 48)
    assert larger.backbone.text_backbone is model.backbone.text_backbone
    assert larger.preprocessor.image_converter.image_size == (48, 48)
    assert larger.preprocessor.image_converter.mean == MEAN
    assert larger.preprocessor.num_image_tokens == larger.backbone.num_image_tokens == 36
    assert model.preprocessor.num_image_tokens == model.backbone.num_image_tokens == ROWS
    answer = larger.generate({"prompts": "why?", "images": pictures(1)[0]}, max_new_tokens=3)
    assert isinstance(answer, str)


def test_the_weights_are_the_same() -> None:
    model = make_model()
    larger = at_size(model, 48)
    picture = np.random.default_rng(0).uniform(size=(1, 48, 48, 3)).astype("float32")
    features = larger.backbone.vision_encoder(picture)
    rows = keras.ops.reshape(features, (1, 36, -1))
    expected = keras.ops.convert_to_numpy(model.backbone.projector(rows))
    got = keras.ops.convert_to_numpy(larger.encode_images(picture[None]))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * abs(expected).max())
    for ours, theirs in zip(
        model.backbone.vision_encoder.get_weights(),
        larger.backbone.vision_encoder.get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
