"""What of a text config is carried over, and what is refused with its reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dl_techniques.checkpoints.language import FAMILIES, build_decoder, decoder_config
from dl_techniques.errors import CheckpointError

ROTARY: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 3e-5,
    "rope_theta": 12345.0,
    "max_position_embeddings": 128,
}
GEMMA = {
    **ROTARY,
    "model_type": "gemma3_text",
    "head_dim": 8,
    "sliding_window": 32,
    "rope_theta": 1e6,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2": {**ROTARY, "model_type": "qwen2"},
    "llava_qwen2": {**ROTARY, "model_type": "llava_qwen2"},
    "qwen3": {**ROTARY, "model_type": "qwen3", "head_dim": 8},
    "llama": {**ROTARY, "model_type": "llama"},
    "phi3": {**ROTARY, "model_type": "phi3"},
    "gemma3_text": GEMMA,
    "opt": {
        "model_type": "opt",
        "vocab_size": 64,
        "hidden_size": 16,
        "ffn_dim": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
    },
}
OPTIONAL = {"max_position_embeddings", "model_type"}


def test_every_family_is_tried() -> None:
    assert set(CONFIGS) == set(FAMILIES)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_a_missing_field_is_named(name: str) -> None:
    config = CONFIGS[name]
    optional = {*OPTIONAL, "rope_theta"} if name in ("llama", "gemma3_text") else OPTIONAL
    optional = optional | ({"num_key_value_heads"} if name in ("llama", "phi3") else set())
    optional -= {"max_position_embeddings"} if name in ("phi3", "opt") else set()
    for field in set(config) - optional:
        with pytest.raises(CheckpointError, match=f"has no '{field}'"):
            decoder_config({k: v for k, v in config.items() if k != field})


@pytest.mark.parametrize("name", [n for n in CONFIGS if n != "opt"])
def test_epsilon_and_base_reach_every_layer(name: str) -> None:
    backbone = build_decoder(decoder_config(CONFIGS[name]))
    epsilons = {
        layer.epsilon if hasattr(layer, "epsilon") else layer._epsilon
        for layer in backbone._flatten_layers()
        if "norm" in type(layer).__name__.lower()
    }
    assert epsilons == {3e-5}
    if name != "gemma3_text":
        waves = {
            layer.max_wavelength
            for layer in backbone._flatten_layers()
            if "Rotary" in type(layer).__name__
        }
        assert waves == {12345.0}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("qwen2", {"head_dim": 9}, "head_dim"),
    ("qwen2", {"hidden_act": "gelu"}, "hidden_act"),
    ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "yarn"),
    ("qwen2", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1.0}}, "dynamic"),
    ("qwen2", {"rope_scaling": {"type": "linear"}}, "no 'factor'"),
    (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3},
        "max_window_layers",
    ),
    ("qwen3", {"attention_bias": True}, "attention_bias"),
    ("llama", {"mlp_bias": True}, "mlp_bias"),
    ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor"),
    ("phi3", {"partial_rotary_factor": 0.75}, "partial_rotary_factor"),
    ("phi3", {"tie_word_embeddings": True}, "tied"),
    ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before"),
    ("opt", {"word_embed_proj_dim": 8}, "word_embed_proj_dim"),
    ("opt", {"activation_function": "gelu"}, "activation_function"),
    ("opt", {"tie_word_embeddings": False}, "untied"),
    ("gemma3_text", {"rope_theta": 1e4}, "rope bases"),
    ("gemma3_text", {"sliding_window_pattern": 2}, "sliding_window_pattern"),
    ("gemma3_text", {"layer_types": ["sliding_attention"] * 6}, "layer_types"),
    ("gemma3_text", {"query_pre_attn_scalar": 5}, "query_pre_attn_scalar"),
]


@pytest.mark.parametrize(("name", "change", "said"), REFUSED)
def test_what_cannot_be_expressed_is_refused(name: str, change: Any, said: str) -> None:
    decoder_config(CONFIGS[name])
    with pytest.raises(CheckpointError, match=said) as caught:
        decoder_config({**CONFIGS[name], **change})
    assert "\n" not in str(caught.value)


def test_windows_of_all_layers_are_kept_and_unused_ones_left_out() -> None:
    window = {"use_sliding_window": True, "sliding_window": 8}
    every = decoder_config({**CONFIGS["qwen2"], **window, "max_window_layers": 0})
    assert every.kwargs["use_sliding_window_attention"]
    assert every.kwargs["sliding_window_size"] == 8
    none = decoder_config({**CONFIGS["qwen2"], **window, "max_window_layers": 6})
    assert not none.kwargs["use_sliding_window_attention"]
    assert decoder_config(CONFIGS["qwen3"]).kwargs["sliding_window_size"] is None


def test_phi3_reads_no_further_than_its_window() -> None:
    spec = decoder_config({**CONFIGS["phi3"], "sliding_window": 100})
    assert spec.kwargs["max_sequence_length"] == 100


def test_unknown_families_and_arguments_are_named() -> None:
    with pytest.raises(CheckpointError, match="'qwen7'.*did you mean 'qwen"):
        decoder_config({**CONFIGS["qwen2"], "model_type": "qwen7"})
    with pytest.raises(CheckpointError, match="use_sliding_window'"):
        build_decoder(decoder_config(CONFIGS["qwen2"]), use_sliding_window=True)


def test_the_config_decides_what_is_tied_until_the_file_does() -> None:
    assert not decoder_config(CONFIGS["qwen2"]).tied
    tied = decoder_config({**CONFIGS["qwen2"], "tie_word_embeddings": True})
    assert tied.tied and not tied.with_tied(False).kwargs["tie_word_embeddings"]


@pytest.mark.parametrize("name", ["qwen3", "gemma3_text"])
def test_corrected_decoders_come_back_from_their_config(name: str) -> None:
    backbone = build_decoder(decoder_config(CONFIGS[name]))
    json.dumps(backbone.get_config(), default=str)
    again = type(backbone).from_config(backbone.get_config())
    assert again.layer_norm_epsilon == 3e-5
    assert [tuple(v.shape) for v in again.weights] == [tuple(v.shape) for v in backbone.weights]
