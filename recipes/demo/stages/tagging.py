"""The name tags of the photo tower: scores fitted to photographs, and probabilities.

Nothing here is trained by steps through the tower: its averaged map of every photograph is computed
once, scores are logistic regressions on it, and the few numbers that make probabilities of scores
are fitted on photographs that the scores have not seen. Kinds are held out as well, so that "none
of the names" has been seen too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from dl_techniques.layers.name_tags import CALIBRATION

PENALTY = 3e-3
ITERATIONS = 40
FOLDS = 3
KIND_PENALTY = 1e-2
PERSON_PENALTY = 5e-2
STRANGE = 0.2
"""Photographs of kinds that were held out, for each one of a kind that was not."""
MOST = 6000
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


def fit_scores(features: np.ndarray, names: np.ndarray, count: int) -> Linear:
    """Penalised multinomial logistic regression: float[C, M], float[M].

    Args:
        features: float[n, C].
        names: int[n], below `count`.
        count: names, M.
    """
    centre, scale = features.mean(0), features.std(0) + 1e-3
    x = ((features - centre) / scale).astype("float32")
    shape = (x.shape[1], count)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        kernel = flat[:-count].reshape(shape).astype("float32")
        logits = x @ kernel + flat[-count:].astype("float32")
        logits -= special.logsumexp(logits, axis=1, keepdims=True)
        right = logits[np.arange(len(x)), names].mean()
        error = np.exp(logits)
        error[np.arange(len(x)), names] -= 1.0
        slope = x.T @ error / len(x) + PENALTY * kernel
        value = -right + 0.5 * PENALTY * float((kernel * kernel).sum())
        return float(value), np.concatenate([slope.ravel(), error.mean(0)]).astype("float64")

    start = np.zeros(shape[0] * count + count)
    found = optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS}
    ).x
    kernel = found[:-count].reshape(shape) / scale[:, None]
    return Linear(kernel, found[-count:] - centre @ kernel)


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
        """float[n, N] from (trained, trained_classes, classes, offset, log floor)."""
        trained, trained_classes, classes, offset, floor = numbers
        told = np.log(self.shares + np.exp(floor))
        logits = classes * told + offset
        count = self.scores.shape[1]
        own = trained * self.scores + trained_classes * told[:, :count]
        logits[:, :count] = np.where(np.isnan(own), logits[:, :count], own)
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


def held_out_evidence(photos: Labelled, shares: np.ndarray, count: int, seed: int = 0) -> Evidence:
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
    known = shares.max(0) > 0.5  # names that the classifier has
    seen = Evidence(np.zeros((0, count)), np.zeros((0, shares.shape[1])), np.zeros(0, int))
    for held in range(FOLDS):
        for by_kind in (False, True):
            out = kind[photos.names] == held if by_kind else fold == held
            scores = fit_scores(photos.features[~out], photos.names[~out], count)(
                photos.features[out]
            )
            names = photos.names[out]
            if by_kind:
                names = np.where(known[names], names, -1)
                scores[:, kind == held] = np.nan  # a name without photographs has no score
            kept = rng.random(len(names)) < (STRANGE if by_kind else 1.0)
            seen = seen + Evidence(scores[kept], shares[out][kept], names[kept])
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

    start = np.array([1.0, 0.2, 0.6, 0.0, np.log(1e-4)])
    found = optimize.minimize(loss, start, method="Nelder-Mead", options={"maxiter": 200})
    logits = evidence.logits(found.x)
    best, spread = logits.max(1), special.logsumexp(logits, axis=1)
    bias, by_best, by_spread = logistic(np.stack([best, spread], 1), named)
    trained, trained_classes, classes, offset, floor = found.x
    return {
        **CALIBRATION,
        "trained": float(trained),
        "trained_classes": float(trained_classes),
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


def fit_fact(features: np.ndarray, yes: np.ndarray, penalty: float) -> Linear:
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
