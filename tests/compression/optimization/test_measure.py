"""Accuracy and time in the LiteRT runtime."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques.compression.optimization.measure import (
    LiteRTClassifier,
    accuracy,
    median_milliseconds,
)
from dl_techniques.errors import CompressionError
from tests.export import litert_files


def test_accuracy_counts_the_best_score() -> None:
    logits = np.array([[0.1, 0.2], [3.0, -1.0], [0.0, 5.0], [1.0, 2.0]])
    assert accuracy(logits, np.array([1, 0, 0, 1])) == 0.75


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(CompressionError, match="no finite numbers"):
        accuracy(np.array([[np.nan, 1.0]]), np.array([0]))


def test_the_median_leaves_the_warm_up_out(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(np.cumsum([0, 1, 5, 3, 5, 100]).tolist())
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    calls: list[int] = []
    assert median_milliseconds(lambda: calls.append(1), 3) == 3000
    assert len(calls) == 13


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tflite").write_text("nothing", encoding="utf-8")
    for name in ("a.tflite", "none.tflite"):
        with pytest.raises(CompressionError, match=f"{name} cannot be run by LiteRT"):
            LiteRTClassifier(tmp_path / name)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason=litert_files.NEEDS_TENSORFLOW)
def test_a_file_is_run_picture_by_picture(tmp_path: Path) -> None:
    path = litert_files.convert(tmp_path / "a.tflite")
    runner = LiteRTClassifier(path)
    logits = runner.predict(x[0] for x in litert_files.pictures())
    np.testing.assert_allclose(logits, litert_files.run(path), rtol=1e-5, atol=1e-6)
    assert runner.milliseconds(3) > 0
