"""Choosing the next token, so that a row's choices do not depend on the batch it is in.

KerasHub's samplers say *how* to choose (greedy, top-k, top-p, random, beam). Their own random
draws are made for the whole batch at once, so the same prompt would get another answer in other
company. Here every row has a stream of random numbers of its own, made on the host from the
sampler's seed and the row's prompt. The same numbers also give the same tokens on every backend.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import keras_hub
import numpy as np
from keras import ops
from keras_hub.samplers import Sampler

from dl_techniques.models.vlm.fast_vlm.answer.finite import mark_rows
from dl_techniques.models.vlm.fast_vlm.answer.sampler_checks import (
    check_sampler,
    check_seed,
    is_greedy,
    resolve,
)
from dl_techniques.runtime.compile import FunctionCache
from dl_techniques.typing import Tensor


def get_sampler(sampler: str | Sampler) -> Sampler:
    """A KerasHub sampler from its name or itself; greedy for one at temperature 0.

    Raises:
        SamplingError: the name is unknown, the sampler cannot run on the generation phases, or
            its temperature, k, p or number of beams means nothing.

    Example:
        >>> get_sampler(keras_hub.samplers.TopKSampler(k=5, temperature=0)).get_config()
        {'temperature': 1.0}
    """
    sampler = resolve(sampler)
    check_sampler(sampler)
    ours = type(sampler) in _FUNCTIONS or isinstance(sampler, keras_hub.samplers.BeamSampler)
    if ours and is_greedy(sampler):
        return keras_hub.samplers.GreedySampler()
    return sampler


class RowRandom:
    """Independent streams of uniform numbers, one per row.

    Args:
        keys: One key per row; rows with the same key have the same stream.
    """

    def __init__(self, keys: Sequence[Sequence[int]]) -> None:
        self._streams = [np.random.default_rng(list(key)) for key in keys]

    def next(self) -> np.ndarray:
        """float32[B] in [0, 1)."""
        # Rounding to float32 must not reach 1, which would point past the last token.
        return np.array([s.random() for s in self._streams], "float32") * np.float32(1 - 1e-6)


def row_keys(
    seed: int | Sequence[int] | np.ndarray | None, rows: Sequence[Sequence[np.ndarray]]
) -> list[tuple[int, ...]]:
    """Keys of the random streams of a batch.

    A row's key is made of the seed and of the row's own prompt and pictures. The second of two
    equal rows gets another key, so that asking twice in one batch gives two answers.

    Args:
        seed: One seed for all rows; or one per row, taken as it is; None for a random one.
        rows: The arrays that make up each row.

    Raises:
        SamplingError: as many seeds as rows were expected, or one is negative.
    """
    seed = check_seed(seed, len(rows))
    if isinstance(seed, list):
        return [(s,) for s in seed]
    # Python's generator, which keras.utils.set_random_seed() seeds.
    base = random.randrange(2**31) if seed is None else seed
    seen: Counter[int] = Counter()
    keys: list[tuple[int, ...]] = []
    for arrays in rows:
        digest = 0
        for array in arrays:
            digest = zlib.crc32(np.ascontiguousarray(array).tobytes(), digest)
        keys.append((base, digest, seen[digest]))
        seen[digest] += 1
    return keys


class TokenChooser:
    """Turns logits into tokens: float[B, vocabulary] -> int[B].

    A row whose logits are not finite gets the token `finite.NOT_FINITE`.

    Args:
        sampler: Any KerasHub sampler but beam.
        randomness: The rows' streams; None where the sampler draws nothing from them (`draws`).
        functions: Where compiled functions are kept.
    """

    def __init__(
        self, sampler: Sampler, randomness: RowRandom | None, functions: FunctionCache
    ) -> None:
        self._randomness = randomness if draws(sampler) else None
        # Samplers we do not know draw for themselves, step by step, uncompiled: they own state.
        self._foreign = sampler if type(sampler) not in _FUNCTIONS else None
        make = _FUNCTIONS.get(type(sampler), _greedy)
        self._choose = functions.get(_key(sampler), _checked(make(sampler)), often=True)

    def __call__(self, logits: Tensor) -> Tensor:
        """The next token of every row."""
        if self._foreign is not None:
            tokens = self._foreign.get_next_token(_probabilities(self._foreign, logits))
            return mark_rows(ops.cast(tokens, "int32"), logits)
        if self._randomness is None:
            return self._choose(logits)
        return self._choose(logits, self._randomness.next())


def draws(sampler: Sampler) -> bool:
    """Whether a sampler's choices need the rows' streams of random numbers."""
    return type(sampler) in _FUNCTIONS and type(sampler) is not keras_hub.samplers.GreedySampler


def _key(sampler: Sampler) -> tuple[Any, ...]:
    fields = (getattr(sampler, name, None) for name in ("temperature", "k", "p"))
    return ("choose", type(sampler), *fields)


def _checked(choose: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same choice, with the rows marked whose logits are not finite."""
    return lambda logits, *u: mark_rows(choose(logits, *u), logits)


def _probabilities(sampler: Sampler, logits: Tensor) -> Tensor:
    """float32[B, vocabulary]: softmax of the logits by the temperature, greedy where they overflow.

    A sampler with a way of its own is asked itself.
    """
    if type(sampler).compute_probabilities is not Sampler.compute_probabilities:
        return sampler.compute_probabilities(logits)
    scaled, fits, best = divided(logits, sampler)
    return ops.where(fits, ops.softmax(scaled, axis=-1), best)


def divided(logits: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor, Tensor]:
    """Logits by a temperature, and what stands for them where it is too small to divide by.

    Args:
        logits: float[B, vocabulary].
        sampler: Has the temperature.

    Returns:
        float32[B, vocabulary], the quotients, the largest of a row moved to 0; bool[B, 1], whether
        the logits of a row can be divided; float32[B, vocabulary], 1 at the likeliest token and 0
        elsewhere.
    """
    logits = ops.cast(logits, "float32")
    places = ops.arange(logits.shape[-1], dtype="int32")[None]
    best = ops.cast(places == ops.cast(ops.argmax(logits, axis=-1), "int32")[:, None], "float32")
    if is_greedy(sampler):
        return logits, ops.zeros_like(logits[:, :1], dtype="bool"), best
    temperature = float(sampler.temperature)
    fits = ops.all(ops.isfinite(logits / temperature), axis=-1, keepdims=True)
    # Moved before they are divided: XLA multiplies and subtracts in one step, unrounded, and the
    # softmax of large quotients would have their rounding errors in its exponents.
    return (logits - ops.max(logits, axis=-1, keepdims=True)) / temperature, fits, best


def _greedy(sampler: Sampler) -> Callable[..., Tensor]:
    return lambda logits: ops.cast(ops.argmax(logits, axis=-1), "int32")


def _random(sampler: Sampler) -> Callable[..., Tensor]:
    return lambda logits, u: _invert(_probabilities(sampler, logits), u)


def _top_k(sampler: Sampler) -> Callable[..., Tensor]:
    def choose(logits: Tensor, u: Tensor) -> Tensor:
        k = min(int(sampler.k), logits.shape[-1])
        values, tokens = ops.top_k(_probabilities(sampler, logits), k=k)
        return _pick(tokens, _invert(values, u))

    return choose


def _top_p(sampler: Sampler) -> Callable[..., Tensor]:
    def choose(logits: Tensor, u: Tensor) -> Tensor:
        size = logits.shape[-1]
        k = size if sampler.k is None else min(int(sampler.k), size)
        values, tokens = ops.top_k(_probabilities(sampler, logits), k=k)
        # A token stays if the ones before it do not reach p yet: the first always does.
        before = ops.cumsum(values, axis=-1) - values
        values = ops.where(before <= float(sampler.p), values, ops.zeros_like(values))
        return _pick(tokens, _invert(values, u))

    return choose


def _invert(weights: Tensor, u: Tensor) -> Tensor:
    """The place where the running sum of the weights passes `u` of its total: int[B]."""
    sums = ops.cumsum(weights, axis=-1)
    places = ops.sum(ops.cast(sums <= u[:, None] * sums[:, -1:], "int32"), axis=-1)
    return ops.minimum(places, weights.shape[-1] - 1)


def _pick(tokens: Tensor, places: Tensor) -> Tensor:
    """`tokens[i, places[i]]` of every row."""
    return ops.cast(ops.take_along_axis(tokens, places[:, None], axis=-1)[:, 0], "int32")


_FUNCTIONS: dict[type, Callable[[Sampler], Callable[..., Tensor]]] = {
    keras_hub.samplers.GreedySampler: _greedy,
    keras_hub.samplers.RandomSampler: _random,
    keras_hub.samplers.TopKSampler: _top_k,
    keras_hub.samplers.TopPSampler: _top_p,
}


def seed_of(sampler: Sampler) -> Any:
    """The seed a sampler was made with."""
    return getattr(sampler, "seed", None)
