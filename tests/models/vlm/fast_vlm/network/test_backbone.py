"""FastVLMBackbone: graph, config, data types, LoRA."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.models.vlm.fast_vlm import FastVLMBackbone
from dl_techniques.runtime.compile import compile_function
from tests.models.vlm.fast_vlm.small_model import (
    DECODERS,
    make_backbone,
    make_decoder,
    make_encoder,
    random_inputs,
    randomize,
)


def run(backbone: Any, inputs: Any) -> Any:
    """The hidden states, compiled."""
    inputs = {k: np.asarray(v, "float32" if k == "images" else "int32") for k, v in inputs.items()}
    function = compile_function(lambda x: backbone(x, training=False), backbone.variables)
    return keras.ops.convert_to_numpy(function(inputs)).astype("float32")


@pytest.fixture(scope="module")
def backbone() -> Any:
    return make_backbone()


def test_weights_are_the_parts_weights(backbone: Any) -> None:
    parts = [backbone.vision_encoder, backbone.projector, backbone.text_backbone]
    expected = sum(part.count_params() for part in parts)
    assert backbone.count_params() == expected
    assert len({id(w) for w in backbone.weights}) == len(backbone.weights)
    assert backbone.num_image_tokens == 4 and backbone.token_embedding is not None


def test_text_alone_equals_the_decoder(backbone: Any, rng: np.random.Generator) -> None:
    inputs = random_inputs(rng, [9, 6], [0, 0])
    text = {k: inputs[k].astype("int32") for k in ("token_ids", "padding_mask")}
    function = compile_function(
        lambda x: backbone.text_backbone(x, training=False), backbone.variables
    )
    expected = keras.ops.convert_to_numpy(function(text))
    dummy = {**inputs, "images": np.zeros((2, 1, 32, 32, 3)), "vision_indices": np.full((2, 4), 14)}
    assert dummy["token_ids"].shape[1] == 14
    got, mask = run(backbone, dummy), inputs["padding_mask"]
    np.testing.assert_allclose(got[mask], expected[mask], atol=1e-5)
    np.testing.assert_allclose(run(backbone, inputs)[mask], expected[mask], atol=1e-5)


def test_eager_call_without_pictures(backbone: Any, rng: np.random.Generator) -> None:
    inputs = random_inputs(rng, [4], [0])
    out = backbone({k: v.astype("int32") if k != "images" else v for k, v in inputs.items()})
    assert tuple(out.shape) == (1, 9, 32)


def test_pictures_change_what_follows_and_not_what_precedes(
    backbone: Any, rng: np.random.Generator
) -> None:
    inputs = random_inputs(rng, [9], [1])
    other = {**inputs, "images": inputs["images"] + 1.0}
    difference = np.abs(run(backbone, inputs) - run(backbone, other))[0].max(axis=-1)
    assert difference[0] == 0 and difference[1:9].min() > 1e-4


def test_config_round_trip(backbone: Any, rng: np.random.Generator) -> None:
    again = FastVLMBackbone.from_config(backbone.get_config())
    assert again.projector.hidden_dim == 20 and type(again) is FastVLMBackbone
    again.set_weights(backbone.get_weights())
    inputs = random_inputs(rng, [9], [1])
    np.testing.assert_array_equal(run(again, inputs), run(backbone, inputs))


@pytest.mark.parametrize("kind", list(DECODERS))
def test_every_decoder_makes_a_backbone(kind: Any) -> None:
    backbone = FastVLMBackbone(make_encoder(), make_decoder(kind))
    assert backbone.output_shape == (None, None, 32)
    again = FastVLMBackbone.from_config(backbone.get_config())
    shapes = [tuple(w.shape) for w in backbone.weights]
    assert [tuple(w.shape) for w in again.weights] == shapes


def test_parts_keep_their_own_types() -> None:
    encoder = make_encoder()
    mixed = FastVLMBackbone(encoder, make_decoder(dtype="bfloat16"), dtype="bfloat16")
    again = FastVLMBackbone.from_config(mixed.get_config())
    for backbone in (mixed, again):
        types = {str(w.dtype) for w in backbone.vision_encoder.weights}
        assert types == {"float32"}
        assert {str(w.dtype) for w in backbone.text_backbone.weights} == {"bfloat16"}
        assert {str(w.dtype) for w in backbone.projector.weights} == {"bfloat16"}


def test_a_type_from_outside_reaches_every_part(backbone: Any) -> None:
    config = {**backbone.get_config(), "dtype": "bfloat16"}
    again = FastVLMBackbone.from_config(config)
    assert {str(w.dtype) for w in again.weights} == {"bfloat16"}
    assert {str(w.dtype) for w in backbone.weights} == {"float32"}
    config["dtype"] = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    mixed = FastVLMBackbone.from_config(config)
    assert {str(w.dtype) for w in mixed.weights} == {"float32"}
    assert mixed.text_backbone.transformer_layers[0].compute_dtype == "bfloat16"


def test_bfloat16_runs(rng: np.random.Generator) -> None:
    config = {**make_backbone().get_config(), "dtype": "bfloat16"}
    backbone = FastVLMBackbone.from_config(config)
    randomize(backbone)
    assert np.isfinite(run(backbone, random_inputs(rng, [9], [1]))).all()


def test_lora_trains_the_decoders_attention_only() -> None:
    backbone = make_backbone()
    backbone.enable_lora(2)
    trained = {w.path for w in backbone.trainable_weights}
    assert trained and all("transformer_layer" in path for path in trained)
    assert any("lora" in path for path in trained)
    assert not backbone.vision_encoder.trainable_weights
