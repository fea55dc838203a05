"""Ranking and calibration of certainty against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dl_techniques.evaluation.calibration import auroc, calibration_error

pytestmark = pytest.mark.once


def test_auroc_counts_pairs() -> None:
    rng = np.random.default_rng(0)
    high, low = rng.integers(0, 9, 40) / 9, rng.integers(0, 7, 30) / 9
    pairs = [(h > x) + (h == x) / 2 for h in high for x in low]
    assert auroc(list(high), list(low)) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_auroc_at_its_ends() -> None:
    assert auroc([1, 2], [0, 0.5]) == 1.0
    assert auroc([0], [1]) == 0.0
    assert auroc([1, 1], [1]) == 0.5


def test_calibration_error_by_hand() -> None:
    certainty, right = [0.05, 0.05, 0.95, 1.0], [False, True, True, False]
    assert calibration_error(certainty, right) == pytest.approx((0.9 + 0.95) / 4)


def test_what_is_as_often_right_as_it_says_has_no_error() -> None:
    assert calibration_error([0.75] * 4, [True, True, True, False]) == 0.0


@pytest.mark.parametrize(
    ("certainty", "right", "words"),
    [([], [], "got 0 for 0"), ([0.5], [True, False], "got 1 for 2"), ([1.5], [True], "between")],
)
def test_bad_input_is_told(certainty: list[float], right: list[bool], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        calibration_error(certainty, right)


def test_one_kind_alone_has_no_auroc() -> None:
    with pytest.raises(ValueError, match="got 2 and 0"):
        auroc([1, 2], [])
