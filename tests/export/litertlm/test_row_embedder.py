"""The embedder of 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dl_techniques.export.litertlm.row_embedder import quantize_rows, write_row_embedder
from tests.export.litertlm.small_bundle import needs_tensorflow
from tests.models.vlm.fast_vlm.small_model import VOCABULARY, make_backbone


def test_every_row_keeps_its_own_precision() -> None:
    table = np.random.default_rng(0).normal(size=(5, 64)).astype("float32")
    table *= np.array([[1.0], [100.0], [0.001], [0.0], [5.0]], "float32")
    numbers, scales = quantize_rows(table)
    assert numbers.dtype == "int8" and scales.dtype == "float32"
    assert np.abs(numbers).max(axis=1).tolist() == [127, 127, 127, 0, 127]
    error = np.abs(numbers * scales[:, None] - table).max(axis=1)
    assert (error <= 0.5001 * scales).all()
    np.testing.assert_array_equal(numbers[3], 0)


@needs_tensorflow
def test_the_file_gives_the_rows_of_the_table(tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    backbone = make_backbone()
    table = np.array(backbone.token_embedding.embeddings)
    path = write_row_embedder(backbone.decoder, VOCABULARY, tmp_path / "embedder.tflite")
    embed = Interpreter(str(path)).get_signature_runner("embed")
    for token in (0, 7, VOCABULARY - 1):
        row = embed(token_ids=np.array([[token]], "int32"))["embeddings"]
        assert row.shape == (1, 1, table.shape[1])
        assert np.abs(row[0, 0] - table[token]).max() <= 0.5001 / 127 * np.abs(table[token]).max()
    assert path.stat().st_size < 0.5 * table.nbytes
