"""Small random FastVLMs of transformers, and the folders that it and Apple would save."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TIMM_FUSED_ATTN", "0")

import numpy as np
import torch

from tests.parity import torchvision_schemas

torchvision_schemas.declare()

import transformers as t  # noqa: E402

IMAGE_ID, VOCABULARY, WIDTH = 110, 120, 32
SIZE, TOKENS = 16, 4
SMALL_TOWER: dict[str, Any] = {
    "layers": [2, 2],
    "embed_dims": [8, 16],
    "mlp_ratios": [4, 4],
    "token_mixers": ["repmixer", "repmixer"],
    "pos_embs": [None, None],
    "downsamples": [False, True],
    "se_downsamples": [False, False],
    "lkc_use_act": True,
    "stem_use_scale_branch": False,
    "inference_mode": True,
}
TEXT: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-3,
    "max_position_embeddings": 512,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def make_model(
    tower: dict[str, Any] | None = None,
    text: dict[str, Any] | None = None,
    tied: bool = False,
    size: int = SIZE,
    seed: int = 0,
) -> Any:
    """A FastVlmForConditionalGeneration in which nothing has its initial value."""
    arguments = SMALL_TOWER if tower is None else tower
    dims = arguments.get("embed_dims", [1536])
    stride = 2 ** (len(arguments.get("layers", range(5))) + 1)
    config = t.FastVlmConfig(
        text_config={**TEXT, **(text or {}), "tie_word_embeddings": tied},
        vision_config={
            "model_type": "timm_wrapper",
            "architecture": "fastvit_mci3",
            "do_pooling": False,
            "hidden_size": 2 * dims[-1],
            "model_args": arguments,
        },
        image_token_index=IMAGE_ID,
        image_seq_length=(size // stride) ** 2,
        tie_word_embeddings=tied,
    )
    model = t.FastVlmForConditionalGeneration(config).eval()
    randomize(model, seed)
    return model


@torch.no_grad()
def randomize(model: Any, seed: int = 0) -> None:
    """Gives every parameter and every running statistic a value of its own."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: Any, low: float, high: float) -> None:
        tensor.copy_(torch.empty(tensor.shape).uniform_(low, high, generator=generator))

    def normal(tensor: Any, deviation: float) -> None:
        tensor.copy_(torch.empty(tensor.shape).normal_(0, deviation, generator=generator))

    for name, tensor in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(7)
        elif "gamma" in name:
            uniform(tensor, 0.1, 0.4)
        elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            uniform(tensor, 0.5, 1.5)
        elif tensor.ndim == 1:
            normal(tensor, 0.1)
        elif "embed_tokens" in name:
            normal(tensor, 0.1)
        else:
            # A decoder of plain variance says one token over and over.
            gain = 1.0 if "timm_model" in name else 3.0
            normal(tensor, gain * float(np.prod(tensor.shape[1:])) ** -0.5)


def save_transformers(model: Any, folder: Path, **options: Any) -> Path:
    """The folder that transformers writes."""
    model.save_pretrained(folder, **options)
    return folder


def state_in_half(model: Any) -> dict[str, np.ndarray]:
    """The tensors in bfloat16, as the published files have them."""
    return {k: v.to(torch.bfloat16) for k, v in model.state_dict().items() if v.is_floating_point()}
