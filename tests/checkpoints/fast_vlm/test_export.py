"""Our models in the Hugging Face layout: whole, exact, and refused where they do not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import keras_hub
import numpy as np
import pytest

from dl_techniques.checkpoints.fast_vlm.export_configs import model_config
from dl_techniques.checkpoints.tensor_files import open_tensors
from dl_techniques.errors import VariantError
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vlm.fast_vlm import (
    FastVLMBackbone,
    FastVLMCausalLM,
    FastVLMCausalLMPreprocessor,
    FastVLMTokenizer,
)
from tests.checkpoints.fast_vlm import folders
from tests.models.vlm.fast_vlm.small_model import make_backbone as make_conv_backbone
from tests.models.vlm.fast_vlm.small_model import make_decoder, pictures

FILES = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    backbone = folders.make_backbone(folders.PLAIN_TOWER)
    folder = folders.apple_folder(tmp_path_factory.mktemp("apple") / "model", backbone)
    return FastVLMCausalLM.from_preset(folder, dtype=request.param)


def test_there_and_back_every_bit_is_the_same(model: Any, tmp_path: Path) -> None:
    dtype = str(model.backbone.projector.dense_1.kernel.dtype)
    model.export_to_transformers(tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # nothing half-written beside it
    again = FastVLMCausalLM.from_preset(tmp_path / "out", dtype=dtype)
    assert folders.same_weights(again, model)
    assert {str(w.dtype) for w in again.weights} == {dtype}
    with open_tensors(tmp_path / "out") as store:
        floats = {str(i.dtype) for n, i in store.items() if not n.endswith("tracked")}
        assert floats == {dtype}


def test_the_other_files_come_back_too(model: Any, tmp_path: Path) -> None:
    model.export_to_transformers(tmp_path / "out")
    again = FastVLMCausalLM.from_preset(tmp_path / "out", dtype="float32")
    old, new = model.preprocessor, again.preprocessor
    assert (again.max_new_tokens, again.temperature) == (256, 0.2)
    assert new.sequence_length == old.sequence_length == 192
    assert new.num_image_tokens == old.num_image_tokens == 64
    assert new.image_converter.get_config() | {"name": 0} == old.image_converter.get_config() | {
        "name": 0
    }
    ask = {"prompts": "what is this? a red cube", "images": pictures(1)}
    for name, array in old.generate_preprocess(ask).items():
        np.testing.assert_array_equal(new.generate_preprocess(ask)[name], array)


def test_shards_and_another_type(tmp_path: Path) -> None:
    backbone = folders.make_backbone(folders.PLAIN_TOWER, tied=True)
    seen: list[int] = []
    backbone.export_to_transformers(
        tmp_path / "out", dtype="bfloat16", max_shard_bytes=9000, progress=seen.append
    )
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert "model.safetensors.index.json" in names and len(names) > 3
    with open_tensors(tmp_path / "out") as store:
        assert sum(seen) == store.nbytes and "lm_head.weight" not in store
    again = FastVLMBackbone.from_preset(tmp_path / "out", image_size=folders.SIZE)
    assert folders.same_weights(again, backbone)
    assert again.text_backbone.tie_word_embeddings


def test_a_written_folder_is_gone_on_with(tmp_path: Path) -> None:
    backbone = folders.make_backbone(folders.PLAIN_TOWER)
    for _ in range(2):
        backbone.export_to_transformers(tmp_path, max_shard_bytes=9000, resume=True)
    (first, *_rest) = sorted(tmp_path.glob("*.safetensors"))
    before = first.stat().st_mtime_ns
    backbone.export_to_transformers(tmp_path, max_shard_bytes=9000, resume=True)
    assert first.stat().st_mtime_ns == before


def test_the_training_form_of_the_tower(tmp_path: Path) -> None:
    config = folders.PLAIN_TOWER
    arguments = folders.tower_arguments(config, folders.SIZE, fused=False)
    decoder = folders.make_backbone(config).text_backbone
    backbone = FastVLMBackbone(FastVLM(**arguments), decoder)
    folders.randomize(backbone)
    backbone.export_to_transformers(tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["vision_config"]["model_args"]["inference_mode"] is False
    again = FastVLMBackbone.from_preset(tmp_path / "out")
    assert not again.vision_encoder.reparameterized and folders.same_weights(again, backbone)


def test_parts(model: Any, tmp_path: Path) -> None:
    model.preprocessor.export_to_transformers(tmp_path / "all")
    assert {p.name for p in (tmp_path / "all").iterdir()} == FILES - {
        "config.json", "generation_config.json", "model.safetensors",
    }  # fmt: skip
    model.preprocessor.tokenizer.export_to_transformers(tmp_path / "text")
    names = {p.name for p in (tmp_path / "text").iterdir()}
    assert names == {"tokenizer.json", "tokenizer_config.json"}


def refused(backbone: Any, match: Any) -> None:
    with pytest.raises(VariantError, match=match):
        model_config(backbone)


@pytest.mark.once
def test_what_the_layout_cannot_hold(tmp_path: Path) -> None:
    refused(make_conv_backbone(), "as wide as the decoder")
    encoder = folders.make_backbone(folders.PLAIN_TOWER).vision_encoder
    refused(FastVLMBackbone(encoder, make_decoder("llama3")), "Llama3Backbone")
    refused(folders.make_backbone(folders.TOWER), "conditional positions")
    nano = FastVLM.from_variant("nano", include_top=False, input_shape=(64, 64, 3))
    refused(FastVLMBackbone(nano, make_decoder()), "a tail that does not double")
    arguments = folders.tower_arguments(folders.PLAIN_TOWER, folders.SIZE, fused=False)
    finer = FastVLM(**{**arguments, "multi_scale": 1})
    refused(FastVLMBackbone(finer, make_decoder()), "maps of several scales")
    encoder.reparameterize(fold=True)
    backbone = FastVLMBackbone(encoder, make_decoder())
    refused(backbone, "folded")
    with pytest.raises(VariantError):
        backbone.export_to_transformers(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_published_tower_is_named_and_nothing_more() -> None:
    tower = dataclasses.asdict(folders.FastVLMConfig.from_variant("fastvithd"))
    assert tower["depths"] == (2, 12, 24, 4, 2)
    arguments = folders.timm_arguments_of("fastvithd")
    assert arguments == {"inference_mode": True}


def test_ids_come_from_the_tokenizer(model: Any) -> None:
    tokenizer = model.preprocessor.tokenizer
    config = model_config(model.backbone, tokenizer)
    assert config["image_token_index"] == tokenizer.image_token_id
    assert config["text_config"]["eos_token_id"] == tokenizer.end_token_id
    assert model_config(model.backbone)["image_token_index"] == 151646
    assert isinstance(tokenizer, FastVLMTokenizer)
    assert isinstance(model.preprocessor, FastVLMCausalLMPreprocessor)
    assert isinstance(model.backbone.text_backbone, keras_hub.models.QwenBackbone)
