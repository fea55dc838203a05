"""The next tokens of a batch whose rows have their own settings, chosen on the host.

A row knows its settings, its prompt, what it has written and its own stream of random numbers;
what else is in the batch never changes what it chooses. A greedy row without penalties costs an
argmax. Rows may come and go between two steps, as in a server.

The compiled choosers of `sampling` do the same where all rows share one KerasHub sampler: equal
logits and equal random numbers give equal tokens here and there.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from dl_techniques.models.vlm.fast_vlm.answer.finite import NOT_FINITE
from dl_techniques.models.vlm.fast_vlm.answer.rows.penalties import Penalties
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings
from dl_techniques.models.vlm.fast_vlm.answer.sampling import RowRandom
from dl_techniques.typing import Tensor

FEW = 256  # candidates that are sorted first: they nearly always hold all of a top_p


@dataclass(frozen=True)
class TokenLogprob:
    """What the model thought of a token before it was chosen.

    Attributes:
        token: the chosen token.
        logprob: its log-probability: of the model itself, before penalties and temperature.
        top: the likeliest tokens and theirs, the best first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class AnswerRow:
    """One answer while it is written.

    Args:
        settings: how to choose.
        prompt: int[n]. The tokens before the answer.
        stop_ids: tokens that end it.
        key: of its random numbers; None for one made of the settings' seed.

    Attributes:
        tokens: what was chosen so far.
        logprobs: one `TokenLogprob` a token, where the settings ask for them.

    Example:
        >>> row = AnswerRow(RowSettings(logprobs=1))
        >>> choose_tokens(np.log([[0.1, 0.7, 0.2]]), [row]).tolist()
        [1]
        >>> round(float(np.exp(row.logprobs[0].logprob)), 3)
        0.7
    """

    def __init__(
        self,
        settings: RowSettings,
        prompt: Sequence[int] | np.ndarray = (),
        stop_ids: Collection[int] = (),
        key: Sequence[int] | None = None,
    ) -> None:
        self.settings = settings
        self.tokens: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self._penalties = Penalties(settings, prompt, stop_ids) if settings.changes_logits else None
        self._random = None if settings.greedy else RowRandom([key or _key_of(settings.seed)])

    @property
    def plain(self) -> bool:
        """Whether the likeliest token of the logits as they are is the choice."""
        return self._random is None and self._penalties is None

    def choose(self, logits: np.ndarray) -> int:
        """The next token, from finite logits float[V]."""
        changed = logits if self._penalties is None else self._penalties.apply(logits, self.tokens)
        if self._random is None:
            return int(changed.argmax())
        return _drawn(changed, self.settings, float(self._random.next()[0]))

    def add(self, token: int, logits: np.ndarray) -> None:
        """Takes a chosen token into the answer."""
        if self.settings.logprobs is not None:
            self.logprobs.append(_logprob(logits, token, self.settings.logprobs))
        if self._penalties is not None:
            self._penalties.add(token)
        self.tokens.append(token)


def _key_of(seed: int | None) -> tuple[int, ...]:
    # Python's generator, which keras.utils.set_random_seed() seeds.
    return (random.randrange(2**31) if seed is None else seed,)


def choose_tokens(logits: np.ndarray, rows: Sequence[AnswerRow | None]) -> np.ndarray:
    """Chooses the next token of every row, and adds it to the row.

    Args:
        logits: float[B, V].
        rows: B rows; None for a place of the batch that nobody uses.

    Returns:
        int32[B]; `finite.NOT_FINITE` for a row whose logits are NaN or infinite, which takes no
        token, and 0 where there is no row.
    """
    values = np.asarray(logits, "float32")
    finite = np.isfinite(values).all(axis=1)
    tokens = values.argmax(axis=1).astype("int32")
    for i, row in enumerate(rows):
        if row is None or not finite[i]:
            tokens[i] = 0 if row is None else NOT_FINITE
            continue
        if not row.plain:
            tokens[i] = row.choose(values[i])
        row.add(int(tokens[i]), values[i])
    return tokens


class RowChooser:
    """`choose_tokens` for a fixed batch: what `TokenLoop` takes instead of a `TokenChooser`."""

    def __init__(self, rows: list[AnswerRow]) -> None:
        self.rows = rows

    def __call__(self, logits: Tensor) -> Any:
        """float[B, vocabulary] -> int32[B]."""
        return choose_tokens(ops.convert_to_numpy(ops.cast(logits, "float32")), self.rows)


def _drawn(logits: np.ndarray, settings: RowSettings, u: float) -> int:
    """The token at the place `u` of the running sum over the tokens that may be drawn."""
    scaled = (logits.astype("float64") - logits.max()) / settings.temperature
    weights = np.exp(scaled)
    if settings.top_k is None and settings.top_p is None:
        return _inverted(weights, u)
    weights /= weights.sum()
    order = _best(weights, settings.top_k, settings.top_p)
    kept = weights[order]
    if settings.top_p is not None:
        # A token stays if the ones before it do not reach p yet: the first always does.
        kept = np.where(np.cumsum(kept) - kept <= settings.top_p, kept, 0.0)
    return int(order[_inverted(kept, u)])


def _best(weights: np.ndarray, k: int | None, p: float | None) -> np.ndarray:
    """The tokens that may be drawn, the likeliest first; some more where only `p` is given."""
    size = len(weights)
    if k is None and p is not None:
        few = _sorted_best(weights, min(FEW, size))
        if weights[few].sum() > p:
            return few
    return _sorted_best(weights, min(k or size, size))


def _sorted_best(weights: np.ndarray, k: int) -> np.ndarray:
    """The `k` largest, the largest first, of equal ones the first."""
    if k < len(weights):
        least = np.partition(weights, -k)[-k]
        places = np.flatnonzero(weights >= least)
        return places[np.argsort(-weights[places], kind="stable")][:k]
    return np.argsort(-weights, kind="stable")


def _inverted(weights: np.ndarray, u: float) -> int:
    """The place where the running sum of the weights passes `u` of its total."""
    sums = np.cumsum(weights)
    return min(int(np.searchsorted(sums, u * sums[-1], side="right")), len(weights) - 1)


def _logprob(logits: np.ndarray, token: int, k: int) -> TokenLogprob:
    """Log-probabilities of a token and of the `k` likeliest."""
    wide = logits.astype("float64")
    total = wide.max() + np.log(np.exp(wide - wide.max()).sum())
    top = _sorted_best(wide, min(k, len(wide))) if k else np.zeros(0, "int64")
    return TokenLogprob(
        token, float(wide[token] - total), tuple((int(t), float(wide[t] - total)) for t in top)
    )
