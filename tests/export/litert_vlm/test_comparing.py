"""What counts as the same: gates for numbers, equality for tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dl_techniques.errors import ExportError
from dl_techniques.export.litert_vlm.comparing import (
    Case,
    Reading,
    compare_readings,
    read_with_host,
    read_with_keras,
)
from tests.export.litert_vlm.small_export import make_model, save_pictures


def reading(tokens: tuple[int, ...] = (5, 6, 7, 2, 9), shift: float = 0.0) -> Reading:
    rows = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    logits = np.linspace(-2, 3, 12, dtype="float32")
    return Reading(rows + np.float32(shift), logits + np.float32(shift), tokens)


def test_equal_readings_pass() -> None:
    checks = compare_readings([reading()] * 2, [reading()] * 2, "float32")
    assert [check.what for check in checks] == [
        "prompt rows",
        "logits after the prompt",
        "greedy tokens",
        "answers",
    ]
    assert all(check.passed and check.samples for check in checks)


def test_numbers_beyond_the_gate_fail() -> None:
    rows, logits, *_ = compare_readings([reading()], [reading(shift=1e-2)], "float32")
    assert not rows.passed
    assert not logits.passed


def test_one_other_token_fails_in_float32_only() -> None:
    other = reading((5, 6, 7, 2, 8))
    for precision, passed in (("float32", False), ("int8", True)):
        *_, tokens, answers = compare_readings([reading()], [other], precision, stop_ids=[2])
        assert tokens.passed is passed
        assert tokens.agreement == pytest.approx(4 / 5)
        # They differ only behind the stop token.
        assert answers.passed
        assert answers.agreement == 1.0


def test_a_shorter_continuation_fails() -> None:
    *_, tokens, answers = compare_readings([reading()], [reading((5, 6))], "float32")
    assert not tokens.passed
    assert not answers.passed


def test_prompts_of_other_lengths_are_an_error() -> None:
    short = Reading(np.zeros((3, 4), "float32"), reading().logits, (5,))
    with pytest.raises(ExportError, match="3 rows of a prompt, Keras 6"):
        compare_readings([reading()], [short], "float32")


def test_prompts_beyond_the_cache(tmp_path: Path) -> None:
    case = Case(tuple(save_pictures(tmp_path)), "what is this?")
    with pytest.raises(ExportError, match="make cache_length larger"):
        read_with_keras(make_model(), case, 40)


def test_a_host_that_fails(tmp_path: Path) -> None:
    folder, work = tmp_path / "folder", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    (folder / "host.py").write_text("import keras\n")
    with pytest.raises(ExportError, match="cannot run the exported files.*keras"):
        read_with_host(folder, [], [], work)
