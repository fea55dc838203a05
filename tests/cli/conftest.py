"""A tiny preset with random weights, so that the commands run without the shipped model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

TEXTS = [
    "Describe the picture.",
    "What is in the picture?",
    "How many cats are there?",
    "You are a helpful assistant.",
]


@pytest.fixture(scope="session")
def tiny_preset(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a vision-language model of a few thousand parameters."""
    import keras
    import keras_hub

    from dl_techniques import (
        FastVLM,
        FastVLMBackbone,
        FastVLMCausalLM,
        FastVLMCausalLMPreprocessor,
        FastVLMImageConverter,
        FastVLMTokenizer,
    )

    keras.utils.set_random_seed(7)
    encoder = FastVLM(
        embed_dims=(8, 16, 32),
        depths=(1, 1, 1),
        num_heads=(1, 1, 1),
        mlp_ratio=2.0,
        include_top=False,
        input_shape=(32, 32, 3),
    )
    tokenizer = FastVLMTokenizer.from_texts(TEXTS, vocabulary_size=300)
    preprocessor = FastVLMCausalLMPreprocessor(
        tokenizer, FastVLMImageConverter(32), sequence_length=256, num_image_tokens=4
    )
    decoder = keras_hub.models.QwenBackbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=1,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=16,
        intermediate_dim=32,
    )
    model = FastVLMCausalLM(FastVLMBackbone(encoder, decoder), preprocessor)
    rng = np.random.default_rng(7)
    for variable in model.trainable_variables:
        if len(variable.shape) > 1:
            variable.assign(rng.normal(0, 0.5, variable.shape))
    folder = tmp_path_factory.mktemp("presets") / "tiny"
    model.save_to_preset(str(folder))
    return str(folder)


@pytest.fixture
def picture(tmp_path: Path) -> str:
    """A small PNG."""
    path = tmp_path / "picture.png"
    Image.effect_noise((40, 30), 80).convert("RGB").save(path)
    return str(path)
