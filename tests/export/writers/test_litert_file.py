"""LiteRT files, run by their own interpreter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl_techniques.errors import CompressionError, ExportError
from dl_techniques.export.gates import compare_outputs
from dl_techniques.export.litert.litert_operators import stored_types
from dl_techniques.export.writers import litert_file
from dl_techniques.export.writers.job import Job
from tests.export.small_exports import backend_is, small, subject_of, wider, written

pytestmark = pytest.mark.skipif(not backend_is("tensorflow"), reason="written by TensorFlow")


def test_features_of_a_free_batch(tmp_path: Path) -> None:
    subject = subject_of(small(), "features", dynamic_batch=True)
    path = tmp_path / "m.tflite"
    notes, expected, got = written(litert_file, subject, path)
    checks = compare_outputs(expected, got, "float32")
    assert {c.what for c in checks} == {"stem", "stage_1", "stage_2"}
    assert all(c.passed for c in checks)
    assert any("built-in operators only" in note and "CONV_2D" in note for note in notes)
    run = litert_file.open_file(path, Job("float32", None, ()))
    pictures = np.concatenate(subject.inputs(None, 4))
    together = run(pictures)
    assert all(c.passed for c in compare_outputs(expected, together, "float32"))
    assert [p.name for p in tmp_path.iterdir()] == ["m.tflite"]


@pytest.mark.parametrize(
    ("precision", "stored"), [("int8", "int8"), ("float16", "float16"), ("int8_static", "int8")]
)
def test_precisions_store_what_they_say(tmp_path: Path, precision: str, stored: str) -> None:
    subject = subject_of(wider())
    path = tmp_path / "m.tflite"
    notes, expected, got = written(litert_file, subject, path, precision)
    (check,) = compare_outputs(expected, got, precision)
    assert check.passed and check.rms is not None and check.rms > 1e-5
    types = stored_types(path)
    # Arrays of less than 1024 numbers stay as they are in int8.
    assert types[stored] > 10_000
    assert any(f"bytes of {stored}" in note for note in notes)


@pytest.mark.full
@pytest.mark.parametrize(
    ("precision", "stored"), [("int8_weights", "int8"), ("int4_weights", "int4")]
)
def test_weight_only_precisions(tmp_path: Path, precision: str, stored: str) -> None:
    subject = subject_of(wider())
    _, expected, got = written(litert_file, subject, tmp_path / "m.tflite", precision)
    (check,) = compare_outputs(expected, got, precision)
    assert check.passed and stored in stored_types(tmp_path / "m.tflite")


def test_weights_beyond_float16_are_refused(tmp_path: Path) -> None:
    model = small()
    model.head[-1].bias.assign(np.full(5, 1e5, "float32"))
    with pytest.raises(CompressionError, match="1e\\+05, is beyond the largest float16"):
        written(litert_file, subject_of(model), tmp_path / "m.tflite", "float16")


def test_foreign_operators_are_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    class Strange:
        inputs = subject_of(small()).deployed.inputs
        variables: tuple[Any, ...] = ()

        def __call__(self, image: Any, training: bool) -> dict[str, Any]:
            return {"logits": tf.math.betainc(image, image, image)}

    with pytest.raises(ExportError, match="LiteRT's converter refuses the network.*Betainc"):
        litert_file.write(Strange(), tmp_path / "m.tflite", Job("float32", None, ("logits",)))
    assert list(tmp_path.iterdir()) == []
