"""How well certainties fit what turned out to be right, and the temperature that makes them fit.

Reference: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural networks",
ICML 2017, https://arxiv.org/abs/1706.04599
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Numbers = Sequence[float] | np.ndarray
Flags = Sequence[bool] | np.ndarray
BINS = 10


def calibration_error(certainty: Numbers, right: Flags, bins: int = BINS) -> float:
    """The expected calibration error (ECE): how far certainty and hit rate are apart, on average.

    Args:
        certainty: float[n] in [0, 1].
        right: bool[n].
        bins: number of equal intervals of certainty that are looked at one by one.

    Raises:
        ValueError: nothing given, shapes that differ, or a certainty outside [0, 1].

    Example:
        >>> round(calibration_error([0.9, 0.9, 0.2], [True, True, False]), 3)
        0.133
    """
    values, hits = _checked(certainty, right)
    places = np.minimum((values * bins).astype(int), bins - 1)
    error = 0.0
    for place in np.unique(places):
        chosen = places == place
        error += chosen.mean() * abs(values[chosen].mean() - hits[chosen].mean())
    return float(error)


def auroc(high: Numbers, low: Numbers) -> float:
    """How often a value of the first kind is above one of the second; ties count half.

    Args:
        high: float[n], values that should be high, e.g. the certainty about what is known.
        low: float[m], values that should be low.

    Raises:
        ValueError: one of them is empty.

    Example:
        >>> auroc([0.9, 0.8, 0.4], [0.1, 0.4])
        0.9166666666666666
    """
    if not len(high) or not len(low):
        raise ValueError(f"expected values of both kinds, got {len(high)} and {len(low)}")
    above, below = np.asarray(high, "float64"), np.sort(np.asarray(low, "float64"))
    places = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
    return float(places.mean() / (2 * len(below)))


def ranking_rate(certainty: Numbers, right: Flags) -> float | None:
    """How often a right answer has a higher certainty than a wrong one: their `auroc`.

    Args:
        certainty: float[n] in [0, 1].
        right: bool[n].

    Returns:
        A number in [0, 1], 0.5 by chance; None where all answers are right or all are wrong.

    Raises:
        ValueError: as `calibration_error`.

    Example:
        >>> ranking_rate([0.9, 0.4, 0.6], [True, True, False])
        0.5
    """
    values, hits = _checked(certainty, right)
    if hits.all() or not hits.any():
        return None
    return auroc(values[hits], values[~hits])


def fit_temperature(certainty: Numbers, right: Flags) -> float:
    """The `certainty_temperature` under which certainties fit best.

    Args:
        certainty: float[n] in [0, 1], at temperature 1: of `generate(..., return_certainty=True)`
            by a model whose `certainty_temperature` is 1.
        right: bool[n]. Of answers that the figures to be told are not measured on.

    Returns:
        The temperature with the highest likelihood, from 0.1 to 10.

    Raises:
        ValueError: as `calibration_error`.

    Example:
        >>> fit_temperature([0.25] * 4, [True, True, False, False])  # 0.25 ** (1 / 2) is a half
        2.0
    """
    values, hits = _checked(certainty, right)
    logarithms = np.log(np.clip(values, 1e-12, 1.0))
    temperatures = np.round(np.geomspace(0.1, 10.0, 2001), 3)

    def loss(temperature: float) -> float:
        told = np.clip(np.exp(logarithms / temperature), 1e-6, 1 - 1e-6)
        return float(-np.where(hits, np.log(told), np.log1p(-told)).mean())

    return float(min(temperatures, key=loss))


def _checked(certainty: Numbers, right: Flags) -> tuple[np.ndarray, np.ndarray]:
    values, hits = np.asarray(certainty, "float64"), np.asarray(right, bool)
    if values.ndim != 1 or values.shape != hits.shape or not len(values):
        raise ValueError(
            f"expected as many certainties as answers, at least one, got shapes {values.shape} "
            f"and {hits.shape}"
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"certainties lie in [0, 1], got {values.min()} to {values.max()}")
    return values, hits
