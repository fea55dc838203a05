"""What passes and what does not."""

from __future__ import annotations

import numpy as np
import pytest

from dl_techniques.errors import ExportError
from dl_techniques.export.formats import PRECISIONS
from dl_techniques.export.gates import GATES, compare_outputs, refuse_failed

pytestmark = pytest.mark.once

LOGITS = np.random.default_rng(0).normal(size=(4, 12))


def noisy(amount: float) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(1).normal(size=LOGITS.shape)
    return {"logits": LOGITS + amount * noise}


def test_every_precision_has_a_gate() -> None:
    assert set(GATES) == set(PRECISIONS)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gate_lets_small_errors_through_and_no_larger_ones(precision: str) -> None:
    measure, gate = GATES[precision]
    scale = gate * (1.0 if measure == "rms" else 0.5)
    (good,) = compare_outputs({"logits": LOGITS}, noisy(0.5 * scale), precision)
    (bad,) = compare_outputs({"logits": LOGITS}, noisy(4 * scale), precision)
    assert good.passed and not bad.passed
    refuse_failed((good,), "m.onnx")
    with pytest.raises(ExportError, match="m.onnx does not compute.*logits.*no file is kept"):
        refuse_failed((good, bad), "m.onnx")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_outputs_of_another_function_pass_no_gate(precision: str) -> None:
    other = {"logits": np.random.default_rng(5).normal(size=LOGITS.shape)}
    constant = {"logits": np.full_like(LOGITS, LOGITS.mean())}
    for got in (other, constant, {"logits": LOGITS * np.nan}):
        (check,) = compare_outputs({"logits": LOGITS}, got, precision)
        assert not check.passed


def test_the_limit_can_be_given() -> None:
    (check,) = compare_outputs({"logits": LOGITS}, noisy(0.3), "float16", " (b)", limit=0.5)
    assert check.passed and check.what == "logits (b)" and "RMS at most 0.5" in check.limit


def test_other_outputs_or_shapes_are_an_error() -> None:
    with pytest.raises(ExportError, match=r"\['b'\], expected \['a'\]"):
        compare_outputs({"a": LOGITS}, {"b": LOGITS}, "float32")
    with pytest.raises(ExportError, match=r"\(4, 6\), Keras' has \(4, 12\)"):
        compare_outputs({"a": LOGITS}, {"a": LOGITS[:, :6]}, "float32")
