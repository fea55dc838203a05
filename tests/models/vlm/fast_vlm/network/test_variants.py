"""Published sizes: their numbers, their names, and what is built from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl_techniques.errors import VariantError
from dl_techniques.models.vision.fast_vlm.config import FastVLMConfig
from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLM, FastVLMTokenizer
from dl_techniques.models.vlm.fast_vlm.answer.choice import Asked
from dl_techniques.models.vlm.fast_vlm.network import variants
from dl_techniques.models.vlm.fast_vlm.network.variants import (
    FastVLMVariant,
    build_variant,
    load_vlm_variants,
)
from dl_techniques.runtime.lazy_build import is_unfilled, without_values
from tests.models.vlm.fast_vlm.small_model import TEXTS, pictures

# Parameters of the tower, the projector, the decoder with its own logits, and of all three.
COUNTS = {
    "fastvlm_0.5b": (122_714_208, 3_557_120, 630_167_424, 756_438_752),
    "fastvlm_1.5b": (122_714_208, 7_080_960, 1_777_088_000, 1_906_883_168),
    "fastvlm_7b": (122_714_208, 23_862_272, 7_615_616_512, 7_762_192_992),
}
SMALL = {"tower": "demo", "image_size": 64, "vocabulary_size": 300, "num_layers": 1}
SMALL |= {"hidden_dim": 28, "intermediate_dim": 40}


def test_names() -> None:
    assert list(load_vlm_variants()) == list(COUNTS)
    with pytest.raises(VariantError, match="did you mean 'fastvlm_0.5b'"):
        FastVLMCausalLM.from_variant("fastvlm_0.5")
    with pytest.raises(VariantError, match="did you mean 'num_layers'"):
        FastVLMCausalLM.from_variant("fastvlm_7b", num_layer=2)
    with pytest.raises(VariantError):
        FastVLMConfig.from_variant("fastvlm_0.5b")


@pytest.mark.parametrize(
    "name", ["fastvlm_0.5b", *(pytest.param(n, marks=pytest.mark.full) for n in list(COUNTS)[1:])]
)
def test_parameters(name: Any) -> None:
    """Counted without a byte of weights."""
    with without_values():
        backbone = build_variant(FastVLMVariant.named(name))
    assert all(is_unfilled(v) for v in backbone.weights)
    parts = (backbone.vision_encoder, backbone.projector, backbone.text_backbone, backbone)
    counts = tuple(sum(int(np.prod(v.shape)) for v in p.trainable_weights) for p in parts)
    assert counts == COUNTS[name]
    assert backbone.image_size == (1024, 1024) and backbone.num_image_tokens == 256
    assert backbone.text_backbone.rope_max_wavelength == 1e6


def test_a_model_without_a_tokenizer_takes_arrays() -> None:
    model = FastVLMCausalLM.from_variant("fastvlm_0.5b", **SMALL)
    assert model.preprocessor is None and model.reparameterized
    assert (model.max_new_tokens, model.temperature) == (256, 0.2)
    assert (model.sampler.k, model.sampler.temperature) == (50, 0.2)


def test_a_model_with_a_tokenizer_answers() -> None:
    tokenizer = FastVLMTokenizer.from_texts(TEXTS, vocabulary_size=300)
    model = FastVLMCausalLM.from_variant("fastvlm_0.5b", tokenizer=tokenizer, **SMALL)
    assert model.preprocessor.sequence_length == 8192
    assert model.preprocessor.num_image_tokens == model.backbone.num_image_tokens
    ask = {"prompts": "Why?", "images": pictures(1)}
    answer = model.generate(ask, max_new_tokens=2)
    assert isinstance(answer, str)
    model.max_new_tokens = 3
    request = model._request(ask, None, None, None, Asked())
    assert list(request.limits) == [3]
    longer = model._request(ask, 128, None, None, Asked())
    assert longer.limits[0] > 3  # a length that was asked for goes before the model's own


def test_float16_is_refused() -> None:
    with pytest.raises(VariantError, match="bfloat16"):
        FastVLMCausalLM.from_variant("fastvlm_0.5b", dtype="float16", **SMALL)


def test_files_with_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variants, "variants_folder", lambda: tmp_path)
    (tmp_path / "vlm").mkdir()
    for text, said in [
        ("tower: demo", "decoder"),
        ("tower: demo\ntowr: x\ndecoder: {}", "did you mean 'tower'"),
        ("tower: demo\ndecoder: {num_layer: 2}", "did you mean 'num_layers'"),
    ]:
        (tmp_path / "vlm" / "broken.yaml").write_text(text)
        load_vlm_variants.cache_clear()
        with pytest.raises(VariantError, match=said):
            load_vlm_variants()
    load_vlm_variants.cache_clear()
