"""Small vision-language models."""

from __future__ import annotations

from typing import Any

import keras_hub
import numpy as np

from dl_techniques.models.vlm.fast_vlm import (
    FastVLMBackbone,
    FastVLMCausalLM,
    FastVLMCausalLMPreprocessor,
    FastVLMImageConverter,
    FastVLMTokenizer,
)
from dl_techniques.models.vlm.fast_vlm.network.corrected import (
    Gemma3Decoder,
    Llama3Decoder,
    Qwen3Decoder,
)
from dl_techniques.models.vlm.fast_vlm.prompt.json_tokenizer import FastVLMJsonTokenizer
from tools.keep_files.inputs import SIDE
from tools.keep_files.networks import fast_vlm

VOCABULARY = 270
TEXTS = ["what is this? a red cube", "why is the cat on the mat?"] * 4
_COMMON = {
    "vocabulary_size": VOCABULARY, "num_layers": 2, "num_query_heads": 4, "num_key_value_heads": 2,
    "hidden_dim": 16, "intermediate_dim": 24,
}  # fmt: skip
_DECODERS: dict[str, tuple[type, dict[str, Any]]] = {
    "qwen": (keras_hub.models.QwenBackbone, {}),
    "qwen3": (Qwen3Decoder, {"head_dim": 6, "layer_norm_epsilon": 1e-5}),
    "llama3": (Llama3Decoder, {"tie_word_embeddings": True}),
    "gemma3": (Gemma3Decoder, {"head_dim": 4, "image_size": SIDE, "vision_encoder": None}),
}


def backbone(decoder: str = "qwen", **options: Any) -> FastVLMBackbone:
    """A backbone of two decoder layers; pictures become 4 x 4 rows of 16 numbers."""
    cls, more = _DECODERS[decoder]
    encoder = fast_vlm(include_top=False, name="encoder", embed_dims=(8, 16), depths=(1, 1))
    model = FastVLMBackbone(encoder, cls(**{**_COMMON, **more}), projector_dim=12, **options)
    _randomize(model)
    return model


def causal_lm(json_tokenizer: bool = False, **options: Any) -> FastVLMCausalLM:
    """The whole model with a tokenizer of its own."""
    tokenizer: Any = FastVLMTokenizer.from_texts(TEXTS, vocabulary_size=VOCABULARY)
    if json_tokenizer:
        tokenizer = FastVLMJsonTokenizer(tokenizer.to_hugging_face(), end_token="<|im_end|>")
    network = backbone(**options)
    preprocessor = FastVLMCausalLMPreprocessor(
        tokenizer, FastVLMImageConverter(SIDE), sequence_length=96,
        num_image_tokens=network.num_image_tokens, system_prompt="Be brief.",
    )  # fmt: skip
    return FastVLMCausalLM(network, preprocessor)


def enable_lora(model: FastVLMCausalLM, rank: int = 2) -> None:
    """LoRA whose matrices are not zero."""
    model.backbone.enable_lora(rank)
    rng = np.random.default_rng(5)
    matrices = [w for w in model.backbone.trainable_weights if w.name.startswith("lora_kernel")]
    for variable in sorted(matrices, key=_end_of_path):
        variable.assign(rng.normal(0, 0.3, variable.shape))


def _randomize(model: FastVLMBackbone, seed: int = 0) -> None:
    """Numbers of its own for every weight outside the encoder, which has its own."""
    rng = np.random.default_rng(seed)
    encoder = {id(weight) for weight in model.vision_encoder.weights}
    for weight in sorted(model.weights, key=_end_of_path):
        if id(weight) in encoder:
            continue
        values = rng.normal(0.0, 0.25, weight.shape)
        if weight.path.endswith(("scale", "gamma")):
            values = 1.0 + np.abs(values)
        weight.assign(values)


def _end_of_path(weight: Any) -> str:
    return str(weight.path).split("/", 1)[-1]
