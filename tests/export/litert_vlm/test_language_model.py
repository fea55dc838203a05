"""Prefill and decode signatures of every family, in chunks and with padding, against Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops

from dl_techniques.errors import ExportError
from dl_techniques.export.litert.litert_operators import refuse_foreign_operators
from dl_techniques.export.litert_vlm.conversion import write_signatures
from dl_techniques.export.litert_vlm.language_model import check_decoder, language_signatures
from dl_techniques.models.vlm.fast_vlm.network.decoders import adapt
from tests.export.litert_vlm.small_export import needs_tensorflow, runner
from tests.models.vlm.fast_vlm.small_model import WIDTH, make_decoder, randomize

SLOTS, VOCABULARY = 48, 60
FEW = pytest.mark.full


def random_decoder(kind: str, **more: Any) -> Any:
    decoder = make_decoder(kind, VOCABULARY, **more)
    randomize(decoder)
    return adapt(decoder)


def through_file(path: Path, rows: np.ndarray, decoder: Any) -> np.ndarray:
    """Logits after the rows: a full chunk, a padded one behind it, and a last row."""
    heads, size = decoder.cache_heads
    layers = len(decoder.backbone.transformer_layers)
    names = [f"kv_cache_{part}_{i}" for i in range(layers) for part in "kv"]
    caches = {name: np.zeros((1, heads, SLOTS, size), "float32") for name in names}
    prefill, count = runner(path, "prefill_16"), rows.shape[1]
    caches = prefill(embeddings=rows[:, :16], input_pos=np.arange(16, dtype="int32"), **caches)
    padded, places = np.full((1, 16, WIDTH), 9.0, "float32"), np.zeros(16, "int32")
    padded[:, : count - 17] = rows[:, 16:-1]
    places[: count - 17] = np.arange(16, count - 1)  # 0 behind them, as LiteRT-LM does it
    caches = prefill(embeddings=padded, input_pos=places, **caches)
    last = np.array([count - 1], "int32")
    result = runner(path, "decode")(embeddings=rows[:, -1:], input_pos=last, **caches)
    logits: np.ndarray = result["logits"][0, 0]
    return logits


@needs_tensorflow
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("gemma3", {"sliding_window_size": 8}),
        pytest.param("qwen", {}, marks=FEW),
        pytest.param("qwen3", {}, marks=FEW),
        pytest.param("llama3", {}, marks=FEW),
        pytest.param("phi3", {}, marks=FEW),
        pytest.param("opt", {}, marks=FEW),
    ],
)
def test_chunks_are_the_whole(kind: str, more: dict[str, Any], tmp_path: Path) -> None:
    decoder = random_decoder(kind, **more)
    signatures = language_signatures(decoder, (16,), SLOTS, with_embedder=True)
    path = write_signatures(tmp_path / "lm.tflite", decoder.backbone, signatures)
    refuse_foreign_operators(path)
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (1, 27)).astype("int32")
    embed = runner(path, "embed")
    rows = np.concatenate([embed(token_ids=ids[:, i : i + 1])["embeddings"] for i in range(27)], 1)
    expected = ops.convert_to_numpy(decoder.embed(ids))
    np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-6 * abs(expected).max())
    hidden = decoder.forward(decoder.add_positions(rows), np.ones((1, 27), bool))
    logits = ops.convert_to_numpy(decoder.logits(hidden))[0, -1]
    got = through_file(path, rows, decoder)
    np.testing.assert_allclose(got, logits, rtol=0, atol=1e-5 * abs(logits).max())


@needs_tensorflow
def test_shared_table_is_stored_once(tmp_path: Path) -> None:
    """Also behind a final norm, whose scale the converter likes to multiply into a copy."""
    vocabulary = 4000
    decoder = adapt(make_decoder("qwen", vocabulary, num_layers=1))
    randomize(decoder.backbone)
    signatures = language_signatures(decoder, (), SLOTS, with_embedder=True)
    path = write_signatures(tmp_path / "lm.tflite", decoder.backbone, signatures)
    table = 4 * vocabulary * WIDTH
    assert table < path.stat().st_size < 1.5 * table


def test_what_cannot_be_held() -> None:
    with pytest.raises(ExportError, match='dtype="float32"'):
        check_decoder(random_decoder("qwen", dtype="bfloat16"), SLOTS)
    with pytest.raises(ExportError, match="192 positions"):
        check_decoder(random_decoder("opt"), 193)
