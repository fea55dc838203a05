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

from dl_techniques.runtime.compile import FunctionCache

Tensor = Any


def get_sampler(sampler: str | Sampler) -> Sampler:
    """A KerasHub sampler from its name or itself.

    Raises:
        ValueError: the name is unknown, or the sampler cannot run on the generation phases.
    """
    sampler = keras_hub.samplers.get(sampler)
    if isinstance(sampler, keras_hub.samplers.BeamSampler):
        if sampler.return_all_beams:
            raise ValueError("generate() returns the best beam; use return_all_beams=False")
    elif type(sampler).__call__ is not Sampler.__call__:
        raise ValueError(
            f"{type(sampler).__name__} runs a decoding loop of its own, which FastVLMCausalLM "
            "does not support; use greedy, top_k, top_p, random, beam, or a Sampler with its own "
            "get_next_token()"
        )
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
    seed: int | Sequence[int] | None, rows: Sequence[Sequence[np.ndarray]]
) -> list[tuple[int, ...]]:
    """Keys of the random streams of a batch.

    A row's key is made of the seed and of the row's own prompt and pictures. The second of two
    equal rows gets another key, so that asking twice in one batch gives two answers.

    Args:
        seed: One seed for all rows; or one per row, taken as it is; None for a random one.
        rows: The arrays that make up each row.

    Raises:
        ValueError: as many seeds as rows were expected.
    """
    if isinstance(seed, Sequence):
        if len(seed) != len(rows):
            raise ValueError(f"{len(rows)} prompts need as many seeds, got {len(seed)}")
        return [(int(s),) for s in seed]
    # Python's generator, which keras.utils.set_random_seed() seeds.
    base = random.randrange(2**31) if seed is None else int(seed)
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

    Args:
        sampler: Any KerasHub sampler but beam.
        randomness: The rows' streams.
        functions: Where compiled functions are kept.
    """

    def __init__(self, sampler: Sampler, randomness: RowRandom, functions: FunctionCache) -> None:
        self._randomness = randomness
        kind = type(sampler)
        self._choose = functions.get(_key(sampler), _choose_function(sampler))
        # Samplers we do not know draw for themselves, step by step, uncompiled: they own state.
        self._foreign = sampler if kind not in _FUNCTIONS else None

    def __call__(self, logits: Tensor) -> Tensor:
        """The next token of every row."""
        if self._foreign is not None:
            probabilities = self._foreign.compute_probabilities(logits)
            return ops.cast(self._foreign.get_next_token(probabilities), "int32")
        return self._choose(logits, self._randomness.next())


def _key(sampler: Sampler) -> tuple[Any, ...]:
    fields = (getattr(sampler, name, None) for name in ("temperature", "k", "p"))
    return ("choose", type(sampler), *fields)


def _choose_function(sampler: Sampler) -> Callable[[Tensor, Tensor], Tensor]:
    make = _FUNCTIONS.get(type(sampler), _greedy)
    return make(sampler)


def _greedy(sampler: Sampler) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda logits, u: ops.cast(ops.argmax(logits, axis=-1), "int32")


def _random(sampler: Sampler) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda logits, u: _invert(sampler.compute_probabilities(logits), u)


def _top_k(sampler: Sampler) -> Callable[[Tensor, Tensor], Tensor]:
    def choose(logits: Tensor, u: Tensor) -> Tensor:
        values, tokens = ops.top_k(sampler.compute_probabilities(logits), k=sampler.k)
        return _pick(tokens, _invert(values, u))

    return choose


def _top_p(sampler: Sampler) -> Callable[[Tensor, Tensor], Tensor]:
    def choose(logits: Tensor, u: Tensor) -> Tensor:
        k = sampler.k or logits.shape[-1]
        values, tokens = ops.top_k(sampler.compute_probabilities(logits), k=k)
        # A token stays if the ones before it do not reach p yet: the first always does.
        before = ops.cumsum(values, axis=-1) - values
        values = ops.where(before <= sampler.p, values, ops.zeros_like(values))
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


_FUNCTIONS: dict[type, Callable[[Sampler], Callable[[Tensor, Tensor], Tensor]]] = {
    keras_hub.samplers.GreedySampler: _greedy,
    keras_hub.samplers.RandomSampler: _random,
    keras_hub.samplers.TopKSampler: _top_k,
    keras_hub.samplers.TopPSampler: _top_p,
}


def seed_of(sampler: Sampler) -> int | None:
    """The seed a sampler was made with."""
    seed = getattr(sampler, "seed", None)
    return None if seed is None else int(seed)
