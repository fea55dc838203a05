"""Calibration: drawn answers whose certainty is known to be right, or off by a known amount."""

from __future__ import annotations

import numpy as np
import pytest

from dl_techniques.evaluation.calibration import (
    auroc,
    calibration_error,
    fit_temperature,
    ranking_rate,
)

pytestmark = pytest.mark.once


@pytest.fixture
def calibrated(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Certainties that say exactly how probable it is that the answers are right."""
    certainty = rng.uniform(0, 1, 40_000)
    return certainty, rng.uniform(size=40_000) < certainty


def test_a_calibrated_model_has_no_error(calibrated: tuple[np.ndarray, np.ndarray]) -> None:
    certainty, right = calibrated
    assert calibration_error(certainty, right) < 0.01
    assert fit_temperature(certainty, right) == pytest.approx(1.0, abs=0.03)


def test_a_temperature_is_found_again(calibrated: tuple[np.ndarray, np.ndarray]) -> None:
    certainty, right = calibrated
    told = certainty**1.7
    assert calibration_error(told, right) > 0.05
    temperature = fit_temperature(told, right)
    assert temperature == pytest.approx(1.7, rel=0.03)
    assert calibration_error(told ** (1 / temperature), right) < 0.01


def test_the_error_by_hand() -> None:
    certainty = np.array([0.1, 0.1, 0.95, 1.0])
    right = np.array([False, True, True, False])
    assert calibration_error(certainty, right, bins=2) == pytest.approx(
        0.5 * (0.5 - 0.1) + 0.5 * (0.975 - 0.5)
    )


def test_the_ranking_counts_pairs(rng: np.random.Generator) -> None:
    certainty = rng.integers(0, 6, 60) / 5  # with ties
    right = rng.uniform(size=60) < 0.5
    pairs = [
        1.0 if good > bad else 0.5 if good == bad else 0.0
        for good in certainty[right]
        for bad in certainty[~right]
    ]
    assert ranking_rate(certainty, right) == pytest.approx(np.mean(pairs))
    assert ranking_rate(certainty, np.ones(60, bool)) is None


def test_the_ranking_at_its_ends() -> None:
    assert auroc([1, 2], [0, 0.5]) == 1.0
    assert auroc([0], [1]) == 0.0
    assert auroc([1, 1], [1]) == 0.5


def test_one_kind_alone_has_no_ranking() -> None:
    with pytest.raises(ValueError, match="got 2 and 0"):
        auroc([1, 2], [])


def test_what_is_as_often_right_as_it_says_has_no_error() -> None:
    assert calibration_error([0.75] * 4, [True, True, True, False]) == 0.0


def test_what_cannot_be_measured() -> None:
    for certainty, right in (([], []), ([0.5], [True, False]), ([1.5], [True]), ([np.nan], [True])):
        for measure in (calibration_error, ranking_rate, fit_temperature):
            with pytest.raises(ValueError, match="^(expected as many|certainties lie)"):
                measure(certainty, right)
