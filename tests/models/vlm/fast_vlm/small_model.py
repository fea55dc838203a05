"""A vision-language model small enough to test with, and nothing in it at its initial value."""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
import numpy as np

from dl_techniques.models.vlm.fast_vlm import (
    FastVLMBackbone,
    FastVLMCausalLM,
    FastVLMCausalLMPreprocessor,
    FastVLMImageConverter,
    FastVLMTokenizer,
)

SIZE = 32
TOKENS = 4
WIDTH = 32
LAYERS = 2
CONTEXT = 192
VOCABULARY = 300
TEXTS = ["what is this? a red cube and a blue ball", "why is the cat on the mat?"] * 4

_ROTARY = {"num_query_heads": 4, "num_key_value_heads": 2}
_COMMON = {"num_layers": LAYERS, "hidden_dim": WIDTH, "intermediate_dim": 48}
DECODERS: dict[str, tuple[type, dict[str, Any]]] = {
    "qwen": (keras_hub.models.QwenBackbone, _ROTARY),
    "qwen3": (keras_hub.models.Qwen3Backbone, {**_ROTARY, "head_dim": 12}),
    "llama3": (keras_hub.models.Llama3Backbone, _ROTARY),
    "phi3": (keras_hub.models.Phi3Backbone, {**_ROTARY, "max_sequence_length": CONTEXT}),
    "opt": (keras_hub.models.OPTBackbone, {"num_heads": 4, "max_sequence_length": CONTEXT}),
    "gemma3": (
        keras_hub.models.Gemma3Backbone,
        {**_ROTARY, "head_dim": 8, "image_size": SIZE, "vision_encoder": None},
    ),
}


def randomize(model: keras.Model, seed: int = 0, scale: float = 0.25) -> None:
    """Gives every weight values of its own; scales stay near one, variances above zero."""
    rng = np.random.default_rng(seed)
    for weight in sorted(model.weights, key=lambda w: w.path.split("/", 1)[-1]):
        values = rng.normal(0.0, scale, weight.shape)
        if weight.path.endswith(("scale", "gamma", "moving_variance")):
            values = 1.0 + np.abs(values)
        if "int" not in str(weight.dtype):
            weight.assign(values)


def make_encoder(size: int = SIZE) -> keras.Model:
    """A stand-in for the vision network: float[M, S, S, 3] -> float[M, 2, 2, 6]."""
    picture = keras.Input((size, size, 3), name="picture")
    x = keras.layers.Conv2D(6, size // 2, size // 2, name="patches")(picture)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(picture, keras.layers.ReLU(name="relu")(x), name="encoder")


def make_decoder(kind: str = "qwen", vocabulary: int = VOCABULARY, **more: Any) -> Any:
    """A tiny KerasHub decoder."""
    cls, arguments = DECODERS[kind]
    return cls(**{"vocabulary_size": vocabulary, **_COMMON, **arguments, **more})


def make_backbone(kind: str = "qwen", vocabulary: int = VOCABULARY) -> FastVLMBackbone:
    """A tiny backbone with random weights."""
    backbone = FastVLMBackbone(make_encoder(), make_decoder(kind, vocabulary), projector_dim=20)
    randomize(backbone)
    return backbone


def make_preprocessor(image_size: int = SIZE) -> FastVLMCausalLMPreprocessor:
    """Tokenizer, picture converter and template."""
    tokenizer = FastVLMTokenizer.from_texts(TEXTS, vocabulary_size=VOCABULARY)
    return FastVLMCausalLMPreprocessor(
        tokenizer,
        FastVLMImageConverter(image_size),
        sequence_length=CONTEXT,
        num_image_tokens=TOKENS,
        system_prompt="Be brief.",
    )


def make_model(kind: str = "qwen") -> FastVLMCausalLM:
    """A tiny model with random weights."""
    preprocessor = make_preprocessor()
    backbone = make_backbone(kind, preprocessor.tokenizer.vocabulary_size())
    return FastVLMCausalLM(backbone, preprocessor)


def pictures(number: int, seed: int = 0) -> list[np.ndarray]:
    """Random pictures."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 255, (24, 40, 3), dtype=np.uint8) for _ in range(number)]


def random_inputs(rng: np.random.Generator, lengths: list[int], images: list[int]) -> dict:
    """Arrays of prompts of given lengths, with pictures in front, as the preprocessor's."""
    rows, longest, slots = len(lengths), max(lengths) + 5, max(images)
    ids = np.zeros((rows, longest), "int32")
    mask = np.zeros((rows, longest), bool)
    places = np.full((rows, slots * TOKENS), longest, "int32")
    for i, (length, number) in enumerate(zip(lengths, images, strict=True)):
        ids[i, :length] = rng.integers(5, 250, length)
        mask[i, :length] = True
        places[i, : number * TOKENS] = 1 + np.arange(number * TOKENS)
    pixels = rng.uniform(0, 1, (rows, slots, SIZE, SIZE, 3)).astype("float32")
    return {"token_ids": ids, "padding_mask": mask, "images": pixels, "vision_indices": places}
