"""Decoders of KerasHub with the arguments that KerasHub loses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.models.vlm.fast_vlm.network.corrected import (
    Gemma3Decoder,
    Llama3Decoder,
    Qwen3Decoder,
)
from tests.helpers import numbers, randomize, relative_difference

SIZES = {
    "vocabulary_size": 32,
    "num_layers": 1,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 24,
}
GEMMA = {"image_size": None, "head_dim": 8, "use_query_key_norm": True}
CASES: list[tuple[Any, dict[str, Any]]] = [
    (Qwen3Decoder, {"head_dim": 8, "layer_norm_epsilon": 0.3, "tie_word_embeddings": False}),
    (Llama3Decoder, {"tie_word_embeddings": True, "layer_norm_epsilon": 0.3}),
    (Llama3Decoder, {"tie_word_embeddings": False}),
    (Gemma3Decoder, {**GEMMA, "layer_norm_epsilon": 0.3, "query_head_dim_normalize": False}),
]


def outputs(model: Any) -> np.ndarray:
    ids = np.arange(10, dtype="int32")[None]
    hidden = model({"token_ids": ids, "padding_mask": np.ones_like(ids)})
    return numbers(model.token_embedding(hidden, reverse=True))


@pytest.mark.parametrize(("kind", "more"), CASES)
def test_a_saved_one_comes_back_with_the_same_numbers(
    kind: Any, more: dict[str, Any], tmp_path: Path
) -> None:
    model = kind(**SIZES, **more)
    randomize(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert type(again) is kind
    np.testing.assert_array_equal(outputs(again), outputs(model))


@pytest.mark.parametrize(("kind", "more"), [CASES[0], CASES[3]])
def test_the_argument_changes_the_numbers(
    kind: Any, more: dict[str, Any], rng: np.random.Generator
) -> None:
    """KerasHub's own class gives the same with and without it."""
    model, base = kind(**SIZES, **more), kind.__mro__[1](**SIZES, **more)
    for mine, other in zip(model.weights, base.weights, strict=True):
        mine.assign(rng.normal(0, 0.5, mine.shape))
        other.assign(mine)
    assert relative_difference(outputs(model), outputs(base)) > 1e-3
