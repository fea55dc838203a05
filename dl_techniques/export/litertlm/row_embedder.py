"""An embedder of 8 bits with a scale for every token.

TensorFlow's converter gives the whole table one scale, in which tokens with short vectors are lost.
With a scale for each row the numbers are those of the decoder's own table where that makes the
logits, so a bundle holds them once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques.export.litert_vlm.conversion import Signature, write_signatures

LARGEST = 127  # -128 is not used, as in all weights of the LiteRT 8-bit specification


def quantize_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A table as whole numbers and a scale for each row.

    Args:
        table: float32[V, D].

    Returns:
        int8[V, D] and float32[V], whose product is nearly the table.

    Example:
        >>> numbers, scales = quantize_rows(np.array([[1.0, -0.5], [0.0, 0.0]], "float32"))
        >>> numbers.tolist(), scales.tolist()
        ([[127, -64], [0, 0]], [0.007874015718698502, 1.0])
    """
    largest = np.abs(table).max(axis=1)
    scales = np.where(largest > 0, largest / np.float32(LARGEST), np.float32(1)).astype("float32")
    return np.rint(table / scales[:, None]).astype("int8"), scales


def write_row_embedder(decoder: keras.Model, rows: int, path: Path) -> Path:
    """Writes `embedder.tflite`, int32[1, 1] -> float32[1, 1, D], in about V * D bytes.

    Args:
        decoder: adapter of the decoder.
        rows: number of ids, V.
        path: the file.
    """
    table = np.array(keras.ops.convert_to_numpy(decoder.embed(np.arange(rows, dtype="int32"))))
    numbers, scales = quantize_rows(table.astype("float32"))

    def embed(token_ids: Any) -> dict[str, Any]:
        row = ops.cast(ops.take(numbers, token_ids, axis=0), "float32")
        return {"embeddings": row * ops.take(scales, token_ids, axis=0)[..., None]}

    signature = Signature(embed, {"token_ids": ((1, 1), "int32")})
    return write_signatures(path, keras.layers.Layer(), {"embed": signature})
