"""The numbers of a comparison."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dl_techniques.export.report import ExportReport, compare_arrays

pytestmark = pytest.mark.once


def test_a_difference_is_relative_to_the_largest_value() -> None:
    expected = np.array([[-10.0, 1.0], [2.0, 3.0]])
    got = expected + np.array([[0.0, 0.05], [0.0, 0.0]])
    check = compare_arrays("logits", expected, got, 0.01)
    assert check.max_difference == pytest.approx(0.05)
    assert check.relative == pytest.approx(0.005)
    assert check.passed and check.agreement == 1.0
    assert check.psnr == pytest.approx(20 * np.log10(10 / 0.025))
    assert not compare_arrays("logits", expected, got, 0.001).passed


def test_nan_fails() -> None:
    check = compare_arrays("map", np.ones((1, 2, 2, 1)), np.full((1, 2, 2, 1), np.nan), 1.0)
    assert not check.passed


def test_top_classes_are_compared_for_scores_only() -> None:
    a, b = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 0.0]])
    assert compare_arrays("logits", a, b, 2.0).agreement == 0.5
    assert compare_arrays("rows", a, b, 2.0, classes=False).agreement is None


def test_other_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2\).*\(2, 1\)"):
        compare_arrays("logits", np.ones((1, 2)), np.ones((2, 1)), 1.0)


def test_a_report_passes_when_all_its_checks_do() -> None:
    good = compare_arrays("a", np.ones((1, 2)), np.ones((1, 2)), 0.1)
    bad = compare_arrays("b", np.ones((1, 2)), np.zeros((1, 2)), 0.1)
    report = ExportReport("onnx", "classifier", "float32", "m.onnx", {"m.onnx": 3}, "x", (good,))
    assert report.passed
    assert report.to_json()["checks"][0]["what"] == "a"
    assert not ExportReport("onnx", "c", "f", "p", {}, "x", (good, bad)).passed


def test_the_rms_is_relative_to_the_spread() -> None:
    expected = np.array([[1.0, 3.0], [5.0, 7.0]])
    check = compare_arrays("a", expected, expected + 0.5, 0.23, measure="rms")
    assert check.rms == pytest.approx(0.5 / np.sqrt(5)) and check.passed
    assert check.limit == "relative RMS at most 0.23"
    assert not compare_arrays("a", expected, expected + 0.5, 0.22, measure="rms").passed


def test_the_top_five_are_counted_where_there_are_more() -> None:
    expected = np.eye(8)[[0, 3]]
    got = np.stack([np.arange(8.0), np.arange(8.0)])
    check = compare_arrays("a", expected, got, 1.0)
    assert check.agreement == 0.0 and check.top5 == 0.5
    assert compare_arrays("a", expected[:, :5], got[:, :5], 1.0).top5 is None


def test_there_and_back_through_json() -> None:
    check = compare_arrays("a", np.ones((1, 2)), np.ones((1, 2)), 0.1)
    report = ExportReport("onnx", "encoder", "float32", "m", {"m": 3}, None, (check,), ("note",))
    assert ExportReport.from_json(json.loads(json.dumps(report.to_json()))) == report
