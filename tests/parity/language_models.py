"""Tiny random text decoders of transformers, saved as it saves them, and what they answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

from tests.parity import torchvision_schemas

torchvision_schemas.declare()

import transformers as t  # noqa: E402

VOCABULARY = 199
SHARED: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-2,  # so large that a wrong one shows
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}


def _rope(theta: float, **scaling: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **scaling}}


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2, 1.3],
    "long_factor": [2.0, 3.0, 4.0, 5.0],
    "original_max_position_embeddings": 64,
}


def configs() -> dict[str, Any]:
    """One configuration a family, and one for each form that a family comes in."""
    tied = {"tie_word_embeddings": True}
    without = {k: v for k, v in SHARED.items() if k not in ("rms_norm_eps", "intermediate_size")}
    return {
        "qwen2": t.Qwen2Config(**SHARED, **_rope(500.0)),
        "qwen2-tied": t.Qwen2Config(**SHARED, **tied, **_rope(1e6)),
        "qwen2-linear": t.Qwen2Config(**SHARED, **_rope(700.0, rope_type="linear", factor=2.0)),
        "qwen3": t.Qwen3Config(**SHARED, head_dim=16, **_rope(900.0)),
        "llama": t.LlamaConfig(**SHARED, **tied, **_rope(100.0)),
        "llama-3.1": t.LlamaConfig(**SHARED, **_rope(50.0, **LLAMA3)),
        "phi3": t.Phi3Config(**SHARED, sliding_window=None, **_rope(300.0)),
        "phi3-longrope": t.Phi3Config(
            **SHARED,
            sliding_window=None,
            original_max_position_embeddings=64,
            **_rope(300.0, **LONGROPE),
        ),
        "opt": t.OPTConfig(**without, ffn_dim=72, word_embed_proj_dim=48, dropout=0.0),
        "gemma3_text": t.Gemma3TextConfig(
            **{**SHARED, "num_hidden_layers": 6},
            head_dim=16,
            query_pre_attn_scalar=8,
            sliding_window=7,
        ),
    }


def random_model(name: str, seed: int = 3, **changes: Any) -> Any:
    """A decoder of transformers with every weight drawn anew."""
    config = configs()[name]
    for field, value in changes.items():
        setattr(config, field, value)
    config._attn_implementation = "eager"
    model = t.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.3 if parameter.ndim == 1 else 2.0 * parameter.shape[-1] ** -0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
            if parameter.ndim == 1:
                parameter.add_(0.7)
    return model


def save(model: Any, folder: Path) -> Path:
    """Saves config and weights as transformers does."""
    model.save_pretrained(folder)
    return folder


def logits(model: Any, ids: np.ndarray) -> np.ndarray:
    """float32[B, L, vocabulary]."""
    with torch.no_grad():
        return model(torch.from_numpy(ids.astype("int64"))).logits.numpy()


def greedy(model: Any, ids: np.ndarray, rows: dict[int, np.ndarray], steps: int = 16) -> list[int]:
    """The likeliest continuation of one prompt, without a cache.

    Args:
        model: of transformers.
        ids: int[L].
        rows: place -> float[D], an embedding that stands there instead of the token's.
        steps: number of new tokens.
    """
    embed = model.get_input_embeddings()
    with torch.no_grad():
        x = embed(torch.from_numpy(ids.astype("int64"))[None]).clone()
        for place, row in rows.items():
            x[0, place] = torch.from_numpy(np.array(row))
        answer: list[int] = []
        for _ in range(steps):
            token = int(model(inputs_embeds=x, use_cache=False).logits[0, -1].argmax())
            answer.append(token)
            x = torch.cat([x, embed(torch.tensor([[token]]))], dim=1)
    return answer
