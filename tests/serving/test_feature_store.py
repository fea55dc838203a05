"""Features are kept by content, within their bytes."""

from __future__ import annotations

import keras
import numpy as np

from dl_techniques.serving.feature_store import FeatureStore
from dl_techniques.serving.questions import digest_of
from tests.helpers import numbers
from tests.models.vlm.fast_vlm.small_model import TOKENS, WIDTH, pictures

BYTES = TOKENS * WIDTH * 4


def converted(model, number):
    return [model.preprocessor.image_converter.to_uint8(p) for p in pictures(number, 55)]


def test_equal_pictures_are_encoded_once_and_as_always(model):
    store, few = FeatureStore(model, 100 * BYTES), converted(model, 3)
    asked = [*few, few[0].copy()]
    found = store.features([digest_of(p) for p in asked], asked)
    assert len(found) == 3 and store.encoded == 3 and store.nbytes == 3 * BYTES
    for picture in few:
        scaled = model.preprocessor.image_converter.scale_pixels(picture)
        expected = numbers(model.encode_images(keras.ops.convert_to_tensor(scaled[None, None])))
        np.testing.assert_allclose(found[digest_of(picture)], expected[0], atol=1e-5)
    store.features([digest_of(few[1])], few[1:2])
    assert store.encoded == 3


def test_the_oldest_leave(model):
    store, few = FeatureStore(model, 2 * BYTES), converted(model, 3)
    digests = [digest_of(p) for p in few]
    for i in (0, 1, 0, 2):
        store.features(digests[i : i + 1], few[i : i + 1])
    assert store.encoded == 3 and store.nbytes == 2 * BYTES
    store.features(digests[:1], few[:1])
    assert store.encoded == 3
    store.features(digests[1:2], few[1:2])
    assert store.encoded == 4
    nothing = FeatureStore(model, 1)
    assert len(nothing.features(digests, few)) == 3 and nothing.nbytes == 0
