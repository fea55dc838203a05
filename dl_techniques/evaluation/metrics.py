"""Exact match, its interval, and the baseline that always says the same.

Reference:
    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

Z_95 = 1.959963984540054


def normalise(answer: str) -> str:
    """An answer as it is compared: no outer spaces, lower case, no final period.

    Example:
        >>> normalise("  A red Circle. ")
        'a red circle'
    """
    return answer.strip().lower().removesuffix(".").strip()


def exact_match(answers: Sequence[str], targets: Sequence[str]) -> int:
    """How many answers equal their targets after `normalise`.

    Raises:
        ValueError: the two sequences differ in length.
    """
    return sum(normalise(a) == normalise(t) for a, t in zip(answers, targets, strict=True))


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a rate, as fractions in [0, 1].

    Wilson's score interval, which stays inside [0, 1] and holds near 0 and 1.

    Args:
        hits: number of successes.
        n: number of trials.

    Raises:
        ValueError: `hits` is not in 0..n, or `n` is 0.

    Example:
        >>> [round(x, 3) for x in wilson_interval(95, 100)]
        [0.888, 0.978]
    """
    if n < 1 or not 0 <= hits <= n:
        raise ValueError(f"expected 0 <= hits <= n and n >= 1, got hits={hits}, n={n}")
    rate, square = hits / n, Z_95**2
    centre = (rate + square / (2 * n)) / (1 + square / n)
    spread = Z_95 * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n)) / (1 + square / n)
    # At 0 and n the bound is the rate itself; rounding must not push the interval past it.
    return max(0.0, min(rate, centre - spread)), min(1.0, max(rate, centre + spread))


def majority_answer(targets: Sequence[str]) -> str:
    """The most frequent answer; the first in the alphabet where several are.

    Raises:
        ValueError: there is none.
    """
    if not targets:
        raise ValueError("expected at least one answer, got none")
    counts = Counter(normalise(target) for target in targets)
    return min(counts, key=lambda answer: (-counts[answer], answer))
