"""Projector, image embedding and splice."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from dl_techniques.models.vlm.fast_vlm.network.image_embedding import (
    ImageEmbedding,
    ImageSplice,
    Projector,
)
from tests.helpers import numbers
from tests.models.vlm.fast_vlm.small_model import make_encoder, randomize


def test_projector_is_two_layers_with_exact_gelu(rng: np.random.Generator) -> None:
    layer = Projector(5, hidden_dim=7)
    layer.build((None, 3, 4))
    randomize(layer)
    x = rng.normal(0, 1, (2, 3, 4)).astype("float32")
    w1, b1, w2, b2 = (np.array(w, "float64") for w in layer.get_weights())
    hidden = x @ w1 + b1
    hidden = 0.5 * hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    np.testing.assert_allclose(numbers(layer(x)), hidden @ w2 + b2, atol=1e-5)
    assert layer.compute_output_shape((2, 3, 4)) == (2, 3, 5)


def test_projector_config_round_trip() -> None:
    config = Projector(5, hidden_dim=7, dtype="bfloat16", name="p").get_config()
    again = Projector.from_config(config)
    assert (again.output_dim, again.hidden_dim, again.compute_dtype) == (5, 7, "bfloat16")
    assert Projector(5).hidden_dim == 5


def test_image_embedding_keeps_pictures_apart(rng: np.random.Generator) -> None:
    encoder = make_encoder()
    layer = ImageEmbedding(encoder, Projector(8))
    images = rng.uniform(0, 1, (2, 3, 32, 32, 3)).astype("float32")
    layer.build(images.shape)
    randomize(encoder)
    randomize(layer.projector)
    rows = numbers(layer(images))
    assert rows.shape == (2, 12, 8)
    one = numbers(layer(images[1:, 2:]))
    np.testing.assert_allclose(rows[1:, 8:], one, atol=1e-5)
    features = numbers(encoder(images[1, 2:], training=False)).reshape(1, 4, 6)
    np.testing.assert_allclose(one, numbers(layer.projector(features)), atol=1e-5)


def test_no_pictures(rng: np.random.Generator) -> None:
    layer = ImageEmbedding(make_encoder(), Projector(8))
    assert tuple(layer(np.zeros((2, 0, 32, 32, 3), "float32")).shape) == (2, 0, 8)
    symbolic = layer(keras.Input((None, 32, 32, 3)))
    assert symbolic.shape == (None, None, 8)


def test_image_embedding_config_round_trip(rng: np.random.Generator) -> None:
    layer = ImageEmbedding(make_encoder(), Projector(8, hidden_dim=3))
    again = ImageEmbedding.from_config(layer.get_config())
    assert again.projector.hidden_dim == 3
    assert again.vision_encoder.output_shape == layer.vision_encoder.output_shape


def naive_splice(text: Any, rows: Any, places: Any) -> Any:
    out = text.copy()
    for b in range(len(text)):
        for row, place in zip(rows[b], places[b], strict=True):
            if place < text.shape[1]:
                out[b, place] = row
    return out


def test_splice_equals_a_loop(rng: np.random.Generator) -> None:
    text = rng.normal(0, 1, (3, 9, 4)).astype("float32")
    rows = rng.normal(0, 1, (3, 4, 4)).astype("float32")
    places = np.array([[0, 1, 2, 3], [5, 8, 9, 9], [9, 9, 9, 9]], "int32")
    got = numbers(ImageSplice()(text, rows, places))
    np.testing.assert_array_equal(got, naive_splice(text, rows, places))


def test_splice_without_rows(rng: np.random.Generator) -> None:
    text = rng.normal(0, 1, (2, 5, 4)).astype("float32")
    got = ImageSplice()(text, np.zeros((2, 0, 4), "float32"), np.zeros((2, 0), "int32"))
    np.testing.assert_array_equal(numbers(got), text)


def test_splice_keeps_the_texts_type(rng: np.random.Generator) -> None:
    text = ops.cast(np.zeros((1, 3, 2), "float32"), "bfloat16")
    out = ImageSplice()(text, np.ones((1, 1, 2), "float32"), np.array([[1]], "int32"))
    assert keras.backend.standardize_dtype(out.dtype) == "bfloat16"


@pytest.mark.parametrize("unused", [False, True])
def test_gradients_reach_the_used_rows_only(rng: np.random.Generator, unused: bool) -> None:
    """One training step moves the projector exactly if its rows are read."""
    projector = Projector(4)
    rows = keras.Input((2, 3), name="rows")
    text = keras.Input((5, 4), name="text")
    places = keras.Input((2,), dtype="int32", name="places")
    out = ImageSplice()(text, projector(rows), places)
    model = keras.Model({"rows": rows, "text": text, "places": places}, out)
    model.compile(keras.optimizers.SGD(1.0), "mse")
    before = [np.array(w) for w in model.get_weights()]
    x = {
        "rows": rng.normal(0, 1, (2, 2, 3)).astype("float32"),
        "text": rng.normal(0, 1, (2, 5, 4)).astype("float32"),
        "places": np.full((2, 2), 5 if unused else 3, "int32"),
    }
    x["places"][:, 1] = 5
    model.fit(x, rng.normal(0, 1, (2, 5, 4)), verbose=0)
    moved = [np.abs(a - b).max() for a, b in zip(model.get_weights(), before, strict=True)]
    assert (max(moved) == 0) if unused else (min(moved) > 0)
