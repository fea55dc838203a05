"""The network that is written equals the source, and the source does not change."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.errors import ExportError
from dl_techniques.export.formats import PARTS, VISION_PARTS
from dl_techniques.export.networks import assemble, copy_of, fuse, resolve_part, size_of
from tests.export.small_exports import small, small_mobile_one, tiny
from tests.helpers import TOLERANCE, numbers, relative_difference, values
from tests.models.vision.fast_vlm.small_network import SIZE, pictures
from tests.models.vlm.fast_vlm.small_model import make_model

PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def exported(model: Any, part: str, side: int = SIZE) -> dict[str, Any]:
    copy = copy_of(model, (side, side))
    fuse(copy)
    assert copy.folded
    network = assemble(copy, part, (side, side), PLAIN, None)
    return network(pictures(height=side, width=side), training=False)


@pytest.mark.parametrize("make", [small, small_mobile_one])
def test_every_part_computes_what_the_source_does(make: Any) -> None:
    model = make(input_shape=(None, None, 3))
    before = values(model)
    x = pictures(height=40, width=40)
    maps = model.extract_features(x)
    wanted: dict[str, dict[str, Any]] = {
        "classifier": {"logits": model(x)},
        "features": dict(zip(("stem", "stage_1", "stage_2"), maps, strict=True)),
        "encoder": {"features": maps[-1]},
    }
    for part, expected in wanted.items():
        got = exported(model, part, 40)
        assert set(got) == set(expected)
        for name, right in expected.items():
            assert relative_difference(got[name], right) < TOLERANCE
    assert not model.reparameterized
    for now, then in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_encoder_ends_after_the_tail() -> None:
    model = small(tail_expansion=2)
    headless = small(tail_expansion=2, include_top=False)
    headless.set_weights([v for v in model.get_weights()[: len(headless.weights)]])
    got = exported(model, "encoder")["features"]
    assert got.shape[-1] == 32
    assert relative_difference(got, headless(pictures())) < TOLERANCE


def test_the_encoder_ends_with_the_maps_of_several_scales() -> None:
    model = small(multi_scale=1, include_top=False)
    expected = model(pictures())
    assert expected.shape[-1] == model.feature_dim > model.config.embed_dims[-1]
    assert relative_difference(exported(model, "encoder")["features"], expected) < TOLERANCE


def test_scores_have_the_name_of_what_they_are() -> None:
    scores = small_mobile_one(classifier_activation="softmax")
    assert list(exported(scores, "classifier")) == ["scores"]
    pooled = small_mobile_one(num_classes=0)
    assert list(exported(pooled, "classifier")) == ["pooled_features"]


def test_half_precision_sources_are_written_in_float32() -> None:
    copy = copy_of(small_mobile_one(dtype="bfloat16"), (SIZE, SIZE))
    assert {v.dtype for v in copy.weights} == {"float32"}


def test_colours_are_normalized_inside() -> None:
    copy = copy_of(tiny(), (SIZE, SIZE))
    colours = ((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    network = assemble(copy, "classifier", (SIZE, SIZE), colours, 1)
    x = np.abs(pictures(1))
    expected = copy(((x - colours[0]) / colours[1]).astype("float32"))
    assert relative_difference(network(x)["logits"], expected) < TOLERANCE
    (image,) = network.inputs
    assert image.name == "image" and image.shape == (1, SIZE, SIZE, 3)


def test_a_vision_language_model_gives_the_rows_of_its_decoder() -> None:
    model = make_model()
    embedding = copy_of(model.backbone.image_embedding, (SIZE, SIZE))
    network = assemble(embedding, "encoder", (SIZE, SIZE), PLAIN, None)
    expected = model.backbone.image_embedding.embed(pictures())
    got = network(pictures())["image_embeddings"]
    assert got.shape == (2, 4, 32)
    np.testing.assert_allclose(numbers(got), numbers(expected), rtol=1e-5, atol=1e-5)


def test_auto_is_what_the_source_is_for() -> None:
    vlm, headless = make_model(), small(include_top=False)
    assert resolve_part(small(), "auto", VISION_PARTS) == "classifier"
    assert resolve_part(headless, "auto", VISION_PARTS) == "encoder"
    assert resolve_part(vlm, "auto", PARTS) == "vlm"
    assert resolve_part(vlm, "auto", VISION_PARTS) == "encoder"
    for model, part in ((headless, "classifier"), (vlm, "features"), (small(), "vlm")):
        with pytest.raises(ExportError, match=f"no part {part!r}.*it has "):
            resolve_part(model, part, PARTS)
    with pytest.raises(ExportError, match="no part 'auto'.*it has none"):
        resolve_part(small(), "auto", ("vlm",))


def test_sizes() -> None:
    free = small(input_shape=(None, None, 3))
    assert size_of(free, None) == (SIZE, SIZE)
    assert size_of(free, 48) == (48, 48)
    assert size_of(small(input_shape=(24, 40, 3)), None) == (24, 40)
    with pytest.raises(ExportError, match="cannot take pictures of 7 pixels.*covers 8"):
        size_of(free, 7)
    with pytest.raises(ExportError, match="takes 4 channels"):
        size_of(small(input_shape=(24, 40, 4)), None)
    vlm = make_model()
    assert size_of(vlm, None) == size_of(vlm, SIZE) == (SIZE, SIZE)
    with pytest.raises(ExportError, match="encoder takes pictures of 32 x 32 pixels only, got 64"):
        size_of(vlm, 64)


def test_the_smallest_size_works() -> None:
    model = small(input_shape=(None, None, 3))
    got = exported(model, "classifier", model.total_stride)["logits"]
    side = model.total_stride
    assert relative_difference(got, model(pictures(height=side, width=side))) < TOLERANCE


def test_what_keras_quantized_is_refused() -> None:
    model = small()
    dense = [layer for layer in model.head if isinstance(layer, keras.layers.Dense)]
    dense[0].quantize("int8")
    with pytest.raises(ExportError, match="head was quantized by Keras.*float model"):
        copy_of(model, (SIZE, SIZE))
