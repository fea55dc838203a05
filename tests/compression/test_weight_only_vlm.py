"""int8 kernels in the vision encoder of a vision-language model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras_hub")

from dl_techniques.compression.static_int8 import quantize_static  # noqa: E402
from dl_techniques.compression.weight_only import quantize_weights  # noqa: E402
from dl_techniques.models.vlm.fast_vlm import (  # noqa: E402
    FastVLMBackbone,
    FastVLMCausalLM,
)
from tests.helpers import numbers, relative_difference  # noqa: E402
from tests.models.vision.fast_vlm.small_network import make_smaller_network  # noqa: E402
from tests.models.vlm.fast_vlm.small_model import (  # noqa: E402
    make_decoder,
    make_preprocessor,
    pictures,
    randomize,
)


def make_model() -> FastVLMCausalLM:
    """A tiny model around one of this package's own vision networks."""
    preprocessor = make_preprocessor()
    encoder = make_smaller_network(include_top=False, num_classes=0)
    decoder = make_decoder(vocabulary=preprocessor.tokenizer.vocabulary_size())
    backbone = FastVLMBackbone(encoder, decoder, projector_dim=20)
    randomize(backbone.projector)
    preprocessor.num_image_tokens = backbone.num_image_tokens
    return FastVLMCausalLM(backbone, preprocessor, max_new_tokens=4)


@pytest.mark.once
def test_encoder_and_decoder_in_int8_survive_a_preset(tmp_path: Path) -> None:
    model = make_model()
    prompt = {"prompts": ["what is this?"], "images": [pictures(1)]}
    inputs = model.preprocessor.generate_preprocess(prompt)
    inputs = {name: np.asarray(value) for name, value in inputs.items()}
    inputs["padding_mask"] = inputs["padding_mask"].astype("int32")
    expected = numbers(model.backbone(inputs))
    paths = quantize_weights(model)
    assert "stem/block_0/fused_conv" in paths
    assert 1e-5 < relative_difference(model.backbone(inputs), expected) < 0.1
    model.quantize("int8")
    quantized = numbers(model.backbone(inputs))
    model.save_to_preset(tmp_path / "int8")
    loaded = FastVLMCausalLM.from_preset(str(tmp_path / "int8"))
    assert loaded.backbone.vision_encoder.quantization["kind"] == "int8_weights"
    np.testing.assert_allclose(numbers(loaded.backbone(inputs)), quantized, atol=1e-5)


def test_a_static_encoder_answers_and_survives_a_preset(tmp_path: Path) -> None:
    model, shown = make_model(), pictures(1)
    prompt = {"prompts": ["what is this?"], "images": [shown]}
    images = numbers(model.preprocessor.image_converter(shown))
    before = numbers(model.encode_images(images[None]))
    assert model.generate(prompt)  # what was compiled must not live on
    paths = quantize_static(model, images)
    assert "stage_1/block_0/conv_ffn/fc1" in paths
    model.quantize("int8")
    rows = numbers(model.encode_images(images[None]))
    assert 1e-5 < relative_difference(rows, before) < 0.15
    model.save_to_preset(tmp_path / "static")
    loaded = FastVLMCausalLM.from_preset(str(tmp_path / "static"))
    assert loaded.backbone.vision_encoder.quantization["kind"] == "static_int8"
    assert loaded.generate(prompt) == model.generate(prompt)
