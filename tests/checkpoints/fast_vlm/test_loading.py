"""Apple's folders to models: every bit arrives, and what does not fit is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl_techniques.errors import CheckpointError, PresetError, VariantError
from dl_techniques.models.vlm.fast_vlm import (
    FastVLMBackbone,
    FastVLMCausalLM,
    FastVLMCausalLMPreprocessor,
    FastVLMImageConverter,
    FastVLMTokenizer,
)
from tests.checkpoints.fast_vlm import folders
from tests.models.vlm.fast_vlm.small_model import pictures

HEAD = "lm_head.weight"


@pytest.fixture(scope="module")
def backbone() -> Any:
    return folders.make_backbone()


@pytest.fixture(scope="module")
def apple(backbone: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return folders.apple_folder(tmp_path_factory.mktemp("apple") / "model", backbone)


@pytest.fixture
def copy(apple: Any, tmp_path: Path) -> Any:
    return shutil.copytree(apple, tmp_path / "copy")


def change_config(folder: Any, **changes: Any) -> None:
    config = {**json.loads((folder / "config.json").read_text()), **changes}
    config = {k: v for k, v in config.items() if v != "absent"}
    (folder / "config.json").write_text(json.dumps(config))


def test_every_bit_arrives(backbone: Any, apple: Any) -> None:
    model = FastVLMCausalLM.from_preset(apple)
    assert folders.same_weights(model.backbone, backbone)
    assert model.backbone.get_config()["vision_encoder"]["config"]["reparameterized"] is True
    assert model.backbone.image_size == (64, 64) and model.backbone.num_image_tokens == 16
    assert {str(w.dtype) for w in model.weights} == {"float32"}


def test_bfloat16_holds_the_file_s_own_numbers(backbone: Any, apple: Any) -> None:
    loaded = FastVLMBackbone.from_preset(apple, dtype="bfloat16")
    assert {str(w.dtype) for w in loaded.weights} == {"bfloat16"}
    assert folders.same_weights(loaded, backbone)
    names = [tuple(w.shape) for w in loaded.trainable_weights]
    assert len(names) == len(backbone.trainable_weights)


def test_shards(backbone: Any, tmp_path: Path) -> None:
    folder = folders.apple_folder(tmp_path / "sharded", backbone, shard_bytes=20_000)
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert folders.same_weights(FastVLMBackbone.from_preset(folder), backbone)
    next(iter(sorted(folder.glob("*.safetensors")))).unlink()
    with pytest.raises(CheckpointError, match="missing shards"):
        FastVLMBackbone.from_preset(folder)


def test_without_a_head_the_logits_are_tied(tmp_path: Path) -> None:
    tied = folders.make_backbone(folders.PLAIN_TOWER, tied=True)
    folder = folders.apple_folder(tmp_path / "tied", tied)
    loaded = FastVLMBackbone.from_preset(folder)
    assert loaded.text_backbone.tie_word_embeddings and folders.same_weights(loaded, tied)


def test_the_whole_way_to_an_answer(apple: Any) -> None:
    model = FastVLMCausalLM.from_preset(apple)
    processor = model.preprocessor
    assert (processor.sequence_length, processor.num_image_tokens) == (192, 16)
    assert processor.image_converter.mode == "pad" and processor.template == "apple"
    assert (model.max_new_tokens, model.temperature) == (256, 0.2)
    assert (model.sampler.k, model.sampler.temperature) == (50, 0.2)
    assert model.stop_ids() == (processor.tokenizer.vocabulary["<|im_end|>"],) + (
        processor.tokenizer.vocabulary["<|endoftext|>"],
    )
    ask = {"prompts": "Why?", "images": pictures(1)}
    assert isinstance(model.generate(ask, max_new_tokens=3), str)


def test_what_was_loaded_is_saved_as_a_preset_of_ours(apple: Any, tmp_path: Path) -> None:
    model = FastVLMCausalLM.from_preset(apple)
    model.save_to_preset(tmp_path / "ours")
    again = FastVLMCausalLM.from_preset(tmp_path / "ours")
    assert folders.same_weights(again, model)
    assert (again.max_new_tokens, again.temperature) == (256, 0.2)
    ask = {"prompts": "Why?", "images": pictures(1)}
    texts = [m.generate(ask, max_new_tokens=4, sampler="greedy") for m in (model, again)]
    assert texts[0] == texts[1]


def test_parts(apple: Any) -> None:
    tokenizer = FastVLMTokenizer.from_preset(apple)
    ours = folders.make_tokenizer()
    assert tokenizer.image_token_id == ours.image_token_id
    assert tokenizer.tokenize_plain("what is this?") == ours.tokenize_plain("what is this?")
    converter = FastVLMImageConverter.from_preset(apple)
    assert converter.image_size == (64, 64) and converter.mean == (0, 0, 0)
    processor = FastVLMCausalLMPreprocessor.from_preset(apple, processing="transformers")
    assert processor.template == "transformers" and processor.image_converter.mode == "crop"


def test_another_picture_size(apple: Any) -> None:
    loaded = FastVLMBackbone.from_preset(apple, image_size=32)
    assert loaded.image_size == (32, 32) and loaded.num_image_tokens == 4


def test_without_weights(backbone: Any, apple: Any) -> None:
    fresh = FastVLMBackbone.from_preset(apple, load_weights=False)
    assert [w.shape for w in fresh.weights] == [w.shape for w in backbone.weights]
    assert not folders.same_weights(fresh, backbone)


def test_progress_counts_the_bytes(backbone: Any, apple: Any) -> None:
    seen: list[int] = []
    FastVLMBackbone.from_preset(apple, progress=seen.append)
    assert len(seen) == len(backbone.weights)
    assert sum(seen) == 2 * backbone.count_params()


@pytest.mark.parametrize(
    ("missing", "extra", "reshaped", "said"),
    [
        (HEAD, None, None, None),
        ("model.norm.weight", None, None, "1 missing: model.norm.weight"),
        (None, "model.extra.weight", None, "1 unused: model.extra.weight"),
        (None, None, "model.mm_projector.0.bias", "1 mis-shaped: model.mm_projector.0.bias"),
    ],
)
def test_what_does_not_fit_is_named(
    backbone: Any,
    copy: Any,
    missing: Any,
    extra: str | None,
    reshaped: str | None,
    said: str | None,
) -> None:
    arrays = folders.apple_arrays(backbone)
    arrays.pop(missing, None)
    if extra:
        arrays[extra] = np.ones(3, "float32")
    if reshaped:
        arrays[reshaped] = np.ones(3, "float32")
    folders.write(copy, arrays)
    if said is None:  # a file without a matrix for the logits is a tied one
        assert FastVLMBackbone.from_preset(copy).text_backbone.tie_word_embeddings
        return
    with pytest.raises(CheckpointError, match=said) as caught:
        FastVLMBackbone.from_preset(copy)
    assert str(copy) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("hidden_size", "absent", "no 'hidden_size'"),
        ("rope_theta", "absent", "no 'rope_theta'"),
        ("mm_vision_tower", "absent", "no 'mm_vision_tower'"),
        ("mm_vision_tower", "openai/clip-vit-large", "mobileclip_l_1024"),
        ("mm_projector_type", "linear", "mlp2x_gelu"),
        ("mm_use_im_start_end", True, "mm_use_im_start_end"),
        ("image_aspect_ratio", "anyres", "pad"),
        ("vocab_size", 290, "mis-shaped"),
    ],
)
def test_configs_that_do_not_fit(copy: Any, field: str, value: Any, said: str) -> None:
    change_config(copy, **{field: value})
    with pytest.raises(CheckpointError, match=said) as caught:
        FastVLMBackbone.from_preset(copy)
    assert str(copy) in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_config(copy: Any) -> None:
    (copy / "config.json").write_text('{"model_type": "llava_')
    with pytest.raises(PresetError, match="config.json"):
        FastVLMCausalLM.from_preset(copy)


def test_a_tokenizer_larger_than_the_network(backbone: Any, copy: Any) -> None:
    arrays = folders.apple_arrays(backbone)
    for name in (HEAD, "model.embed_tokens.weight"):
        arrays[name] = arrays[name][:290]
    folders.write(copy, arrays)
    change_config(copy, vocab_size=290)
    with pytest.raises(CheckpointError, match="290 rows"):
        FastVLMCausalLM.from_preset(copy)


def test_a_missing_tokenizer_is_said_before_the_weights_are_read(copy: Any) -> None:
    (copy / "vocab.json").unlink()
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes())
    seen: list[int] = []
    with pytest.raises(CheckpointError, match="tokenizer"):
        FastVLMCausalLM.from_preset(copy, progress=seen.append)
    assert not seen
    assert FastVLMCausalLM.from_preset(copy, preprocessor=None).preprocessor is None


def test_variants_and_overrides_are_checked(apple: Any) -> None:
    with pytest.raises(CheckpointError, match=r"no fastvlm_0.5b: .*hidden_dim 16 instead of 896"):
        FastVLMBackbone.from_preset(apple, variant="fastvlm_0.5b")
    with pytest.raises(VariantError, match="did you mean 'fastvlm_7b'"):
        FastVLMBackbone.from_preset(apple, variant="fastvlm_7")
    with pytest.raises(PresetError, match="did you mean 'dtype'"):
        FastVLMBackbone.from_preset(apple, dtpye="bfloat16")


@pytest.mark.parametrize("dtype", ["float16", "mixed_float16"])
def test_float16_is_refused_with_the_reason(apple: Any, dtype: str) -> None:
    with pytest.raises(VariantError, match="65504"):
        FastVLMBackbone.from_preset(apple, dtype=dtype)
