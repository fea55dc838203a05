"""What each family's text config says, as arguments of its KerasHub backbone."""

from __future__ import annotations

from typing import Any

from dl_techniques.checkpoints.language.config_fields import (
    Config,
    Rope,
    flag,
    linear_factor,
    longrope_factor,
    needed,
    real,
    refuse_scaling,
    refuse_unless,
    rope_of,
    whole,
)
from dl_techniques.data.damage import of_kind, real_number, whole_number
from dl_techniques.errors import CheckpointError

Kwargs = dict[str, Any]


def _common(config: Config, kv_default: bool = False) -> Kwargs:
    """What all rotary families share."""
    no_kv = kv_default and config.get("num_key_value_heads") is None
    kv_heads = whole(config, "num_attention_heads" if no_kv else "num_key_value_heads")
    return {
        "vocabulary_size": whole(config, "vocab_size"),
        "num_layers": whole(config, "num_hidden_layers"),
        "num_query_heads": whole(config, "num_attention_heads"),
        "num_key_value_heads": kv_heads,
        "hidden_dim": whole(config, "hidden_size"),
        "intermediate_dim": whole(config, "intermediate_size"),
        "layer_norm_epsilon": real(config, "rms_norm_eps"),
    }


def _refuse_odd_heads(config: Config) -> None:
    """Heads whose sizes are not the width divided by their number."""
    size, heads = config.get("head_dim"), whole(config, "num_attention_heads")
    own = whole(config, "hidden_size") // heads
    refuse_unless(
        size in (None, own), config, "head_dim", f"keras_hub computes it as {own} in this family"
    )


def _refuse_activation(config: Config, field_name: str, allowed: tuple[str, ...]) -> None:
    value = config.get(field_name, allowed[0])
    refuse_unless(value in allowed, config, field_name, f"expected {' or '.join(allowed)}")


def _sliding(config: Config) -> int | None:
    """Size of the window if every layer has one, None if none has.

    Raises:
        CheckpointError: some layers have one and some not.
    """
    size, layers = config.get("sliding_window"), whole(config, "num_hidden_layers")
    if not flag(config, "use_sliding_window") or size is None:
        return None
    first = whole_number(config.get("max_window_layers", layers), "max_window_layers", least=0)
    kinds = _layer_types(config) or [
        "sliding_attention" if i >= first else "full_attention" for i in range(layers)
    ]
    windowed = [kind == "sliding_attention" for kind in kinds]
    reason = "keras_hub gives all layers of this family a window or none"
    refuse_unless(all(windowed) or not any(windowed), config, "max_window_layers", reason)
    return whole(config, "sliding_window") if all(windowed) else None


def _layer_types(config: Config) -> list[Any] | None:
    kinds = config.get("layer_types")
    return None if kinds is None else list(of_kind(kinds, list, "layer_types"))


def qwen2(config: Config) -> Kwargs:
    """Qwen2, Qwen2.5, and the decoder of Apple's FastVLM."""
    _refuse_odd_heads(config)
    _refuse_activation(config, "hidden_act", ("silu",))
    rope = rope_of(config)
    refuse_scaling(rope, ("default", "linear"), "qwen2")
    window = _sliding(config)
    kwargs = {
        **_common(config),
        "rope_max_wavelength": rope.theta,
        "rope_scaling_factor": linear_factor(rope),
        "use_sliding_window_attention": window is not None,
    }
    return kwargs if window is None else {**kwargs, "sliding_window_size": window}


def qwen3(config: Config) -> Kwargs:
    """Qwen3."""
    _refuse_activation(config, "hidden_act", ("silu",))
    reason = "keras_hub's Qwen3 has no biases"
    refuse_unless(not config.get("attention_bias"), config, "attention_bias", reason)
    rope = rope_of(config)
    refuse_scaling(rope, ("default", "linear"), "qwen3")
    return {
        **_common(config),
        "head_dim": whole(config, "head_dim"),
        "rope_max_wavelength": rope.theta,
        "rope_scaling_factor": linear_factor(rope),
        # Absent, keras_hub would cut every text at a window of 32768.
        "sliding_window_size": _sliding(config),
    }


def llama(config: Config) -> Kwargs:
    """Llama 3 and what is built like it, SmolLM2 among them."""
    _refuse_odd_heads(config)
    _refuse_activation(config, "hidden_act", ("silu",))
    for name in ("attention_bias", "mlp_bias"):
        refuse_unless(not config.get(name), config, name, "keras_hub's Llama has no biases")
    rope = rope_of(config, default_theta=10000.0)
    refuse_scaling(rope, ("default", "linear", "llama3"), "llama")
    kwargs = {
        **_common(config, kv_default=True),
        "rope_max_wavelength": rope.theta,
        "rope_position_scaling_factor": linear_factor(rope),
    }
    if rope.kind == "llama3":
        kwargs |= {
            "rope_frequency_adjustment_factor": rope.real("factor"),
            "rope_low_freq_factor": rope.real("low_freq_factor"),
            "rope_high_freq_factor": rope.real("high_freq_factor"),
            "rope_pretraining_sequence_length": whole_number(
                rope.needed("original_max_position_embeddings"), "original_max_position_embeddings"
            ),
        }
    return kwargs


def phi3(config: Config) -> Kwargs:
    """Phi-3 and Phi-4."""
    _refuse_odd_heads(config)
    _refuse_activation(config, "hidden_act", ("silu",))
    rope = rope_of(config)
    refuse_scaling(rope, ("default", "longrope", "su"), "phi3")
    longest = whole(config, "max_position_embeddings")
    window = config.get("sliding_window")
    # Within its window a text is read as if there were none; longer ones are refused by length.
    kwargs = {
        **_common(config, kv_default=True),
        "rope_max_wavelength": rope.theta,
        "max_sequence_length": longest
        if window is None
        else min(longest, whole(config, "sliding_window")),
    }
    if rope.kind == "default":
        return kwargs
    name = "original_max_position_embeddings"
    pretrained = whole_number(rope.values.get(name) or needed(config, name), name)
    longrope_factor(rope, longest, pretrained)
    reason = "the scaling depends on the whole length, which the window cuts"
    refuse_unless(
        window is None or whole(config, "sliding_window") >= longest,
        config,
        "sliding_window",
        reason,
    )
    return kwargs | {
        "pretraining_sequence_length": pretrained,
        "rope_scaling_type": "su",
        "rope_scaling_short_factor": _factors(rope, "short_factor"),
        "rope_scaling_long_factor": _factors(rope, "long_factor"),
    }


def _factors(rope: Rope, name: str) -> list[float]:
    return [real_number(x, name) for x in of_kind(rope.needed(name), list, name)]


def opt(config: Config) -> Kwargs:
    """OPT, but for the 350M, whose norms stand elsewhere."""
    _refuse_activation(config, "activation_function", ("relu",))
    width = whole(config, "hidden_size")
    for name, expected in (
        ("do_layer_norm_before", True),
        ("enable_bias", True),
        ("layer_norm_elementwise_affine", True),
        ("_remove_final_layer_norm", False),
        ("word_embed_proj_dim", width),
    ):
        value = config.get(name, expected)
        refuse_unless(value == expected, config, name, f"keras_hub's OPT has it {expected}")
    return {
        "vocabulary_size": whole(config, "vocab_size"),
        "num_layers": whole(config, "num_hidden_layers"),
        "num_heads": whole(config, "num_attention_heads"),
        "hidden_dim": width,
        "intermediate_dim": whole(config, "ffn_dim"),
        "dropout": real(config, "dropout", 0.1),
        "max_sequence_length": whole(config, "max_position_embeddings"),
    }


GEMMA3_PERIOD = 6
"""Every sixth layer of Gemma3 sees everything, the others a window."""


def gemma3(config: Config) -> Kwargs:
    """The text part of Gemma 3."""
    common = _common(config)
    _refuse_activation(config, "hidden_activation", ("gelu_pytorch_tanh",))
    head_dim = whole(config, "head_dim")
    for name, expected in (
        ("attention_bias", False),
        ("use_bidirectional_attention", False),
    ):
        value = config.get(name, expected)
        refuse_unless(value == expected, config, name, f"keras_hub's Gemma3 has it {expected}")
    width, scalar = common["hidden_dim"] // common["num_query_heads"], head_dim
    scalar = whole(config, "query_pre_attn_scalar", scalar)
    reason = f"keras_hub's Gemma3 has {head_dim} or {width}"
    refuse_unless(scalar in (head_dim, width), config, "query_pre_attn_scalar", reason)
    windowed = _gemma3_layers(config)
    return common | {
        "image_size": None,
        "head_dim": head_dim,
        "query_head_dim_normalize": scalar == head_dim,
        "use_post_ffw_norm": True,
        "use_post_attention_norm": True,
        "attention_logit_soft_cap": config.get("attn_logit_softcapping"),
        "final_logit_soft_cap": config.get("final_logit_softcapping"),
        "use_sliding_window_attention": windowed,
        "sliding_window_size": whole(config, "sliding_window") if windowed else 4096,
        "global_rope_scaling_factor": _gemma3_rope(config, windowed),
    }


def _gemma3_layers(config: Config) -> bool:
    """Whether layers have windows in Gemma3's rhythm (True) or none has one (False)."""
    layers = whole(config, "num_hidden_layers")
    rhythm = ["sliding_attention" if (i + 1) % 6 else "full_attention" for i in range(layers)]
    kinds = _layer_types(config)
    period = config.get("sliding_window_pattern", config.get("_sliding_window_pattern"))
    if kinds is None:
        reason = f"keras_hub's Gemma3 has it {GEMMA3_PERIOD}"
        refuse_unless(period in (None, GEMMA3_PERIOD), config, "sliding_window_pattern", reason)
        return True
    full = ["full_attention"] * layers
    reason = "keras_hub's Gemma3 has five layers with a window, then one without"
    refuse_unless(kinds in (rhythm, full), config, "layer_types", reason)
    return kinds == rhythm


def _gemma3_rope(config: Config, windowed: bool) -> float:
    """Factor of the positions of the layers that see everything; bases are fixed upstream."""
    nested = of_kind(config.get("rope_parameters") or {}, dict, "rope_parameters")
    if "full_attention" in nested:
        far, near = nested["full_attention"], nested.get("sliding_attention")
    else:
        scaling = of_kind(config.get("rope_scaling") or {}, dict, "rope_scaling")
        far = {**scaling, "rope_theta": config.get("rope_theta", 1e6)}
        near = {"rope_theta": config.get("rope_local_base_freq", 1e4)}
    far_rope = rope_of({**config, "rope_parameters": far})
    refuse_scaling(far_rope, ("default", "linear"), "gemma3_text")
    thetas = [far_rope.theta]
    if windowed:
        near_rope = rope_of({**config, "rope_parameters": needed({"near": near}, "near")})
        refuse_scaling(near_rope, ("default",), "gemma3_text (layers with a window)")
        thetas.append(near_rope.theta)
    if thetas != [1e6, 1e4][: len(thetas)]:
        raise CheckpointError(
            f"gemma3_text with rope bases {thetas} is not supported: keras_hub has 1e6 and 1e4"
        )
    return linear_factor(far_rope)
