"""The name tags of the photo tower: scores fitted to photographs, probabilities that mean something.

Nothing here is trained by gradient steps through the tower: its averaged map of every photograph is
computed once, scores are ridge regressions on it, and the few numbers that make probabilities of
scores are fitted on photographs that the scores have not seen. Classes are held out as well, so that
"none of the names" has been seen too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from dl_techniques.layers.name_tags import CALIBRATION

RIDGE = 100.0
FOLDS = 4
FACT_PENALTY = 3e-3
MOST = 4000
"""Photographs that calibration looks at: four numbers want no more."""


@dataclass(frozen=True)
class Labelled:
    """Averaged maps of photographs and their names.

    Attributes:
        features: float[n, C].
        names: int[n], the place of each one's name; -1 for what has none.
    """

    features: np.ndarray
    names: np.ndarray


@dataclass(frozen=True)
class Linear:
    """A dense layer's weights: float[C, M] and float[M]."""

    kernel: np.ndarray
    bias: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return features.astype("float64") @ self.kernel + self.bias


def ridge(features: np.ndarray, names: np.ndarray, count: int, penalty: float = RIDGE) -> Linear:
    """One-against-all scores by least squares: about 1 for the name, about -1 for the others.

    Args:
        features: float[n, C].
        names: int[n], below `count`; any other value stands for none of them.
        count: names.
        penalty: of squared weights.
    """
    x = features.astype("float64")
    targets = np.full((len(x), count), -1.0)
    own = (names >= 0) & (names < count)
    targets[np.flatnonzero(own), names[own]] = 1.0
    centre, mean = x.mean(0), targets.mean(0)
    x = x - centre
    kernel = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (targets - mean))
    return Linear(kernel, mean - centre @ kernel)


def summed(classes: np.ndarray, class_names: np.ndarray, count: int) -> np.ndarray:
    """Probabilities of names from those of classes: float[n, K] -> float[n, N]."""
    told = np.zeros((len(classes), count))
    np.add.at(told.T, class_names, classes.T)
    return told


@dataclass(frozen=True)
class Evidence:
    """What calibration sees of photographs: scores of the trained names, shares of all names."""

    scores: np.ndarray
    shares: np.ndarray
    names: np.ndarray

    def logits(self, numbers: np.ndarray) -> np.ndarray:
        """float[n, N] from (trained, classes, offset, log floor)."""
        trained, classes, offset, floor = numbers
        logits = classes * np.log(self.shares + np.exp(floor)) + offset
        count = self.scores.shape[1]
        logits[:, :count] += trained * self.scores - offset
        return logits

    def sample(self, count: int, rng: np.random.Generator) -> Evidence:
        """At most so many of them."""
        at = rng.permutation(len(self.names))[:count]
        return Evidence(self.scores[at], self.shares[at], self.names[at])

    def __add__(self, other: Evidence) -> Evidence:
        return Evidence(
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.shares, other.shares]),
            np.concatenate([self.names, other.names]),
        )


def held_out_evidence(
    photos: Labelled, shares: np.ndarray, count: int, seed: int = 0
) -> Evidence:
    """Scores of photographs by regressions that saw neither them nor, for half of them, their kind.

    A kind that was held out keeps its name where the published classifier knows it by itself, and
    is none of the names where it does not.

    Args:
        photos: with names below `count`.
        shares: float[n, N] of the published classifier.
        count: names with a score.
        seed: of the folds.
    """
    rng = np.random.default_rng(seed)
    fold = rng.integers(FOLDS, size=len(photos.names))
    kind = rng.integers(FOLDS, size=count)
    known = shares.max(0) > 0  # names that the classifier has
    seen = Evidence(np.zeros((0, count)), np.zeros((0, shares.shape[1])), np.zeros(0, int))
    for held in range(FOLDS):
        for by_kind in (False, True):
            out = kind[photos.names] == held if by_kind else fold == held
            fit = ridge(photos.features[~out], photos.names[~out], count)
            scores = fit(photos.features[out])
            names = photos.names[out]
            if by_kind:
                names = np.where(known[names], names, -1)
                # a name without photographs has no score: what it would be for any other picture
                scores[:, kind == held] = np.median(scores)
            seen = seen + Evidence(scores, shares[out], names)
    return seen


def calibrate(evidence: Evidence, seed: int = 0) -> dict[str, float]:
    """Fits the numbers of `NameTags` by likelihood."""
    evidence = evidence.sample(MOST, np.random.default_rng(seed))
    named = evidence.names >= 0
    inside = Evidence(evidence.scores[named], evidence.shares[named], evidence.names[named])

    def loss(numbers: np.ndarray) -> float:
        logits = inside.logits(numbers)
        right = logits[np.arange(len(logits)), inside.names]
        return float((special.logsumexp(logits, axis=1) - right).mean())

    start = np.array([4.0, 0.5, -4.0, np.log(1e-4)])
    found = optimize.minimize(loss, start, method="Nelder-Mead", options={"maxiter": 150})
    logits = evidence.logits(found.x)
    best, spread = logits.max(1), special.logsumexp(logits, axis=1)
    bias, by_best, by_spread = logistic(np.stack([best, spread], 1), named)
    trained, classes, offset, floor = found.x
    return {
        **CALIBRATION,
        "trained": float(trained),
        "classes": float(classes),
        "offset": float(offset),
        "floor": float(np.exp(floor)),
        "known_bias": bias,
        "known_best": by_best,
        "known_spread": by_spread,
    }


def logistic(x: np.ndarray, yes: np.ndarray) -> tuple[float, ...]:
    """Logistic regression without a penalty: the bias, then the weights."""
    x1 = np.concatenate([np.ones((len(x), 1)), x], 1)
    sign = np.where(yes, 1.0, -1.0)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x1 @ w)
        slope = -(sign * special.expit(-margin))[:, None] * x1
        return float(np.logaddexp(0, -margin).mean()), slope.mean(0)

    found = optimize.minimize(loss, np.zeros(x1.shape[1]), jac=True, method="L-BFGS-B")
    return tuple(float(value) for value in found.x)


def fit_fact(features: np.ndarray, yes: np.ndarray, penalty: float = FACT_PENALTY) -> Linear:
    """Penalised logistic regression on averaged maps: float[C, 1], float[1].

    Args:
        features: float[n, C].
        yes: bool[n].
        penalty: of squared weights, on features of deviation one.
    """
    x = features.astype("float64")
    centre, scale = x.mean(0), x.std(0) + 1e-3
    x1 = np.concatenate([np.ones((len(x), 1)), (x - centre) / scale], 1)
    sign = np.where(yes, 1.0, -1.0)
    shrink = np.full(x1.shape[1], penalty)
    shrink[0] = 0.0

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x1 @ w)
        slope = -(sign * special.expit(-margin))[:, None] * x1
        value = np.logaddexp(0, -margin).mean() + 0.5 * (shrink * w * w).sum()
        return float(value), slope.mean(0) + shrink * w

    found = optimize.minimize(loss, np.zeros(x1.shape[1]), jac=True, method="L-BFGS-B")
    kernel = found.x[1:] / scale
    return Linear(kernel[:, None], np.array([found.x[0] - centre @ kernel]))
