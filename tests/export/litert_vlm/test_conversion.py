"""Functions become signatures of a file; weights are kept, foreign operators are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.errors import ExportError
from dl_techniques.export.litert_vlm import conversion
from dl_techniques.export.litert_vlm.conversion import Signature, write_signatures
from tests.export.litert_vlm.small_export import needs_tensorflow, runner

SPEC = {"x": ((1, 8), "float32")}


def make_dense() -> keras.layers.Layer:
    layer = keras.layers.Dense(64, bias_initializer="random_normal")
    layer.build((1, 8))
    return layer


@needs_tensorflow
def test_two_signatures_share_their_weights(tmp_path: Path) -> None:
    layer, x = make_dense(), np.linspace(-1, 1, 8, dtype="float32")[None]
    signatures = {
        "once": Signature(lambda x: {"y": layer(x)}, SPEC),
        "negated": Signature(lambda x: {"y": layer(-x)}, SPEC),
    }
    path = write_signatures(tmp_path / "two.tflite", layer, signatures)
    for name, sign in (("once", 1), ("negated", -1)):
        expected = keras.ops.convert_to_numpy(layer(sign * x))
        np.testing.assert_allclose(runner(path, name)(x=x)["y"], expected, atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["two.tflite"]


@needs_tensorflow
def test_an_operator_that_litert_lacks(tmp_path: Path) -> None:
    import tensorflow as tf

    def call(x: Any) -> dict[str, Any]:
        return {"y": tf.linalg.det(tf.reshape(x, (2, 4))[:, :2])}

    path = tmp_path / "foreign.tflite"
    path.write_text("old")
    with pytest.raises(ExportError, match="refused the network") as failure:
        write_signatures(path, make_dense(), {"f": Signature(call, SPEC)})
    assert "\n" not in str(failure.value)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@needs_tensorflow
def test_a_file_too_large_to_be_addressed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(conversion, "MAX_BYTES", 100)
    layer = make_dense()
    with pytest.raises(ExportError, match="at most 100"):
        write_signatures(
            tmp_path / "a.tflite", layer, {"f": Signature(lambda x: {"y": layer(x)}, SPEC)}
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="this is the right backend")
def test_another_backend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="KERAS_BACKEND=tensorflow"):
        write_signatures(tmp_path / "a.tflite", make_dense(), {})
