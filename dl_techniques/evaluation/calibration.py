"""Whether a stated certainty means something: does it rank, and is it as often right as it says.

References:
    M. P. Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", 2015.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BINS = 10


def auroc(high: Sequence[float], low: Sequence[float]) -> float:
    """The probability that a value of the first kind is above one of the second; ties count half.

    Args:
        high: values that should be high, e.g. the certainty about what is known.
        low: values that should be low.

    Raises:
        ValueError: one of them is empty.

    Example:
        >>> auroc([0.9, 0.8, 0.4], [0.1, 0.4])
        0.9166666666666666
    """
    if not len(high) or not len(low):
        raise ValueError(f"expected values of both kinds, got {len(high)} and {len(low)}")
    first, second = np.asarray(high, float)[:, None], np.sort(np.asarray(low, float))
    below = np.searchsorted(second, first[:, 0], "left")
    up_to = np.searchsorted(second, first[:, 0], "right")
    return float((below + up_to).mean() / 2 / len(second))


def calibration_error(certainty: Sequence[float], right: Sequence[bool], bins: int = BINS) -> float:
    """How far certainty and the rate of right answers are apart, on average (ECE).

    Args:
        certainty: stated probabilities that an answer is right, in [0, 1].
        right: whether it is.
        bins: how many equally wide groups of certainty are compared.

    Raises:
        ValueError: there is none, their numbers differ, or one is no probability.

    Example:
        >>> calibration_error([0.95, 0.95], [True, False])
        0.45
    """
    stated, hits = np.asarray(certainty, float), np.asarray(right, float)
    if not len(stated) or len(stated) != len(hits):
        raise ValueError(f"expected one certainty an answer, got {len(stated)} for {len(hits)}")
    if not ((stated >= 0) & (stated <= 1)).all():
        raise ValueError("expected certainties between 0 and 1")
    group = np.minimum((stated * bins).astype(int), bins - 1)
    apart = np.bincount(group, stated - hits, bins)
    return float(np.abs(apart).sum() / len(stated))
