"""Exact match, Wilson's interval and the majority answer."""

from __future__ import annotations

import pytest

from dl_techniques.evaluation.metrics import (
    exact_match,
    majority_answer,
    normalise,
    wilson_interval,
)

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (" Yes. ", "yes"),
        ("a Cat", "a cat"),
        ("e.g.", "e.g"),
        ("two .", "two"),
        ("...", ".."),
        ("", ""),
        ("ÉTÉ", "été"),
    ],
)
def test_normalise(given: str, expected: str) -> None:
    assert normalise(given) == expected


def test_exact_match_counts_equal_answers_only() -> None:
    assert exact_match(["Yes.", "two", "a cat"], ["yes", "Two", "cat"]) == 2


def test_exact_match_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError):
        exact_match(["yes"], ["yes", "no"])


def test_wilson_interval_equals_published_values() -> None:
    # 81 of 263: R. Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_wilson_interval_holds_the_rate(n: int) -> None:
    for hits in range(n + 1):
        low, high = wilson_interval(hits, n)
        assert 0.0 <= low <= hits / n <= high <= 1.0


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_interval_refuses_impossible_counts(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match="0 <= hits <= n"):
        wilson_interval(hits, n)


def test_majority_answer_is_normalised_and_stable() -> None:
    assert majority_answer(["No", "no.", "yes"]) == "no"
    assert majority_answer(["b", "a"]) == "a"
    with pytest.raises(ValueError, match="at least one"):
        majority_answer([])
