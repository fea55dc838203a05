"""Networks say themselves what they are: parts, sizes, forms, pixels, copies."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.errors import ExportError
from dl_techniques.models.picture_network import (
    FixedEncoder,
    PictureNetwork,
    encoder_network,
    picture_network,
)
from tests.export.small_exports import small, small_mobile_one
from tests.helpers import values
from tests.models.vision.fast_vlm.small_network import SIZE, pictures
from tests.models.vlm.fast_vlm.small_model import make_model

pytestmark = pytest.mark.once
FORMS = ("branched", "fused", "folded")


@pytest.mark.parametrize("make", [small, small_mobile_one])
def test_vision_networks_answer(make: Any) -> None:
    network = picture_network(make(input_shape=(None, None, 3)))
    assert network.parts() == ("classifier", "encoder", "features")
    side = network.picture_encoder().preprocessing.size
    assert network.input_size == (side, side) and network.forms == FORMS
    copy = network.copy((48, 48))
    assert copy.input_size == (48, 48) and type(copy) is type(network)
    copy.fold()
    assert copy.picture_encoder().folded and not network.picture_encoder().folded


def test_bytes_are_scaled_inside_or_outside() -> None:
    inside, outside = small(include_preprocessing=True), small()
    image = np.full((20, 40, 3), 255, "uint8")
    for network, lies_in in ((inside, "[0, 255]"), (outside, "[0, 1]")):
        rule = picture_network(network).picture_rule((16, 16))
        assert rule.lies_in == lies_in and rule.to_bytes(image).shape == (16, 16, 3)


def test_a_vision_language_model_answers() -> None:
    model = make_model()
    network = picture_network(model)
    assert network.parts() == ("vlm", "encoder")
    assert network.input_size == (SIZE, SIZE)
    assert network.picture_rule((SIZE, SIZE)).to_bytes(np.zeros((9, 5, 3), "uint8")).shape[0] == 32
    copy = network.copy((SIZE, SIZE))
    right = model.backbone.image_embedding
    assert type(copy) is type(right) and isinstance(copy, PictureNetwork)
    for a, b in zip(values(copy), values(right), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_encoder_of_others_stands_as_it_is() -> None:
    picture = keras.Input((SIZE, SIZE, 3))
    encoder = keras.Model(picture, keras.layers.Conv2D(4, 8, 8)(picture), name="theirs")
    network = encoder_network(encoder)
    assert isinstance(network, FixedEncoder)
    assert (network.forms, network.total_stride, network.parts()) == ((), None, ("encoder",))
    copy = network.copy((SIZE, SIZE))
    right = network.part_outputs("encoder", pictures())["features"]
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(copy.part_outputs("encoder", pictures())["features"]),
        keras.ops.convert_to_numpy(right),
        rtol=1e-5,
        atol=1e-6,
    )
    with pytest.raises(ExportError, match="a Functional cannot be exported; expected.*FastVLM"):
        picture_network(encoder)
