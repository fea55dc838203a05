"""The parts of the recipe: the demo model's encoder, the language model, and what learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques.checkpoints.language import language_model_from
from dl_techniques.layers.activations import gelu
from dl_techniques.models.vlm.fast_vlm import (
    FastVLMBackbone,
    FastVLMCausalLM,
    FastVLMCausalLMPreprocessor,
)
from recipes.smollm_head.data import Encoded, Questions

POOL = 2
"""The encoder's map is averaged over so many places a side: 16 rows a picture become 4."""


def build(language: Path, demo: str = "demo") -> FastVLMCausalLM:
    """The demo model's encoder, a new projector, and the language model.

    Args:
        language: a `.gguf` file or a Hugging Face folder.
        demo: preset whose encoder and picture converter are taken.
    """
    demo_model = FastVLMCausalLM.from_preset(demo)
    encoder = demo_model.backbone.vision_encoder
    pooled = keras.layers.AveragePooling2D(POOL, data_format="channels_last", name="pool")(
        encoder.output
    )
    encoder = keras.Model(encoder.input, pooled, name="pooled_encoder")
    parts = language_model_from(language)
    backbone = FastVLMBackbone(encoder, parts.backbone)
    preprocessor = FastVLMCausalLMPreprocessor(
        parts.tokenizer,
        demo_model.preprocessor.image_converter,
        sequence_length=64,
        num_image_tokens=int(backbone.num_image_tokens or 0),
        system_prompt=None,
    )
    return FastVLMCausalLM(backbone, preprocessor)


def features_of(model: FastVLMCausalLM, images: np.ndarray, batch: int = 64) -> np.ndarray:
    """What the encoder sees in pictures, computed once: float32[N, h, w, C]."""
    converter = model.preprocessor.image_converter
    encoder = model.backbone.vision_encoder
    parts = []
    for start in range(0, len(images), batch):
        pixels = np.stack([converter.to_uint8(i) for i in images[start : start + batch]])
        parts.append(ops.convert_to_numpy(encoder(converter.scale_pixels(pixels))))
    return np.concatenate(parts)


def begin_well(
    model: FastVLMCausalLM, features: np.ndarray, words: Sequence[Sequence[str]]
) -> None:
    """Solves for a projector whose rows are near the embeddings of words for the pictures.

    The first layer keeps its random directions, with inputs of unit variance whatever the
    encoder's scale; the second is the ridge regression from what comes out of it to the mean
    embedding of each picture's words. That takes seconds and saves most of the training, which
    then has to find only what the language model makes of such rows.

    Args:
        model: with a new projector.
        features: float[N, h, w, C] of the training pictures.
        words: of each picture, e.g. `["red", "circle"]`; pictures without any are left out.
    """
    projector = model.backbone.projector
    known = [i for i, names in enumerate(words) if names]
    flat = features[known].reshape(-1, features.shape[-1]).astype("float64")
    scale = 1 / (flat.std(axis=0) + 1e-3)
    kernel = ops.convert_to_numpy(projector.dense_1.kernel) * scale[:, None]
    projector.dense_1.kernel.assign(kernel)
    projector.dense_1.bias.assign(-flat.mean(axis=0) @ kernel)
    hidden = ops.convert_to_numpy(gelu(projector.dense_1(flat.astype("float32"))))
    targets = np.stack([_mean_embedding(model, words[i]) for i in known])
    targets = np.repeat(targets, len(flat) // len(known), axis=0)
    weights, bias = _ridge(hidden.astype("float64"), targets.astype("float64"))
    projector.dense_2.kernel.assign(weights)
    projector.dense_2.bias.assign(bias)


def _mean_embedding(model: FastVLMCausalLM, words: Sequence[str]) -> np.ndarray:
    """Mean embedding of the tokens of words, as they stand inside a text."""
    ids = [i for word in words for i in model.preprocessor.tokenizer.tokenize_plain(f" {word}")]
    embeddings: np.ndarray = ops.convert_to_numpy(
        model.backbone.decoder.embed(np.asarray([ids], "int32"))
    )[0]
    return embeddings.mean(axis=0)


def _ridge(x: np.ndarray, y: np.ndarray, strength: float = 1e-2) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of the linear map that comes nearest, with small weights."""
    center, middle = x.mean(axis=0), y.mean(axis=0)
    x, y = x - center, y - middle
    square = x.T @ x
    square += strength * np.trace(square) / len(square) * np.eye(len(square))
    kernel = np.linalg.solve(square, x.T @ y)
    return kernel, middle - center @ kernel


def learner(model: FastVLMCausalLM, rate: float = 1e-3) -> keras.Model:
    """A model from features to the logits of the answers' tokens; only its projector learns.

    The projector and the decoder are those of `model`, not copies.

    Args:
        model: with a new projector.
        rate: of learning.
    """
    backbone = model.backbone
    backbone.text_backbone.trainable = False
    shape = backbone.vision_encoder.output_shape[1:]
    features = keras.Input(shape, name="features")
    text = {name: keras.Input((None,), dtype="int32", name=name) for name in _TEXT}
    flat = keras.layers.Reshape((-1, shape[-1]))(features)
    rows = backbone.projector(flat)
    logits = AnswerLogits(backbone, name="answer_logits")(rows, *(text[n] for n in _TEXT))
    made = keras.Model({"features": features, **text}, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.Adam(rate), loss)
    return made


_TEXT = ("token_ids", "padding_mask", "vision_indices", "places")


class AnswerLogits(keras.layers.Layer):
    """Runs the decoder over texts with pictures; gives logits at some places only.

    The vocabulary is so large that logits of every position would cost as much as a fifth of
    the decoder.

    Args:
        backbone: whose splice and decoder are used; they are not part of this layer's weights.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(self, backbone: FastVLMBackbone, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.splice = backbone.image_splice
        self.text_backbone = backbone.text_backbone
        self.decoder = backbone.decoder

    def call(self, rows: Any, ids: Any, mask: Any, indices: Any, places: Any) -> Any:
        """float[B, T, D], int[B, L] twice, int[B, T], int[B, K] -> float[B, K, vocabulary]."""
        x = self.splice(self.decoder.embed(ids), rows, indices)
        x = self.decoder.forward(self.decoder.add_positions(x), mask)
        return self.decoder.logits(ops.take_along_axis(x, places[:, :, None], axis=1))

    def compute_output_spec(self, rows: Any, ids: Any, mask: Any, indices: Any, places: Any) -> Any:
        """Shape and type of the logits."""
        size = self.text_backbone.vocabulary_size
        return keras.KerasTensor((*places.shape, size), dtype=self.compute_dtype)


def inputs_of(encoded: Encoded, features: np.ndarray, questions: Questions) -> dict[str, Any]:
    """Arrays of the learner's inputs, all questions at once."""
    pictures = np.asarray([item[0] for item in questions.items])
    text = {name: getattr(encoded, name).astype("int32") for name in _TEXT}
    return {"features": features[pictures], **text}
