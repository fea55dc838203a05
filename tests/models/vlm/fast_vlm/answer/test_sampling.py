"""Choosing tokens: KerasHub's rules, with streams of random numbers of our own."""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
import numpy as np
import pytest

from dl_techniques.models.vlm.fast_vlm.answer.sampling import (
    RowRandom,
    TokenChooser,
    get_sampler,
    row_keys,
)
from dl_techniques.runtime.compile import FunctionCache

VOCABULARY, DRAWS = 7, 4000


def draw(sampler: Any, logits: Any) -> Any:
    """Frequencies of the tokens over many draws."""
    rows = np.tile(logits[None], (DRAWS, 1)).astype("float32")
    random = RowRandom([(0, i) for i in range(DRAWS)])
    chosen = TokenChooser(sampler, random, FunctionCache())(keras.ops.convert_to_tensor(rows))
    return np.bincount(keras.ops.convert_to_numpy(chosen), minlength=VOCABULARY) / DRAWS


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max())
    return e / e.sum()


@pytest.fixture
def logits(rng: np.random.Generator) -> Any:
    return rng.normal(0, 1.5, VOCABULARY)


def test_random_follows_the_distribution(logits: Any) -> None:
    got = draw(keras_hub.samplers.RandomSampler(temperature=0.5), logits)
    np.testing.assert_allclose(got, softmax(logits / 0.5), atol=0.03)


def test_top_k_keeps_k_tokens(logits: Any) -> None:
    got = draw(keras_hub.samplers.TopKSampler(k=3), logits)
    kept = np.argsort(logits)[-3:]
    expected = np.zeros(VOCABULARY)
    expected[kept] = softmax(logits)[kept] / softmax(logits)[kept].sum()
    np.testing.assert_allclose(got, expected, atol=0.03)
    assert set(np.flatnonzero(got)) == set(kept)


def test_top_p_keeps_the_smallest_set_beyond_p() -> None:
    probabilities = np.array([0.02, 0.4, 0.03, 0.3, 0.05, 0.15, 0.05])
    got = draw(keras_hub.samplers.TopPSampler(p=0.6), np.log(probabilities))
    expected = np.array([0, 0.4, 0, 0.3, 0, 0, 0]) / 0.7
    np.testing.assert_allclose(got, expected, atol=0.03)


def test_top_p_always_keeps_the_best() -> None:
    got = draw(keras_hub.samplers.TopPSampler(p=0.0), np.array([0, 1, 5, 0, 0, 0, 0.0]))
    assert got.tolist() == [0, 0, 1, 0, 0, 0, 0]


def test_top_p_within_k() -> None:
    probabilities = np.array([0.02, 0.4, 0.03, 0.3, 0.05, 0.15, 0.05])
    got = draw(keras_hub.samplers.TopPSampler(p=0.99, k=2), np.log(probabilities))
    assert set(np.flatnonzero(got)) == {1, 3}


def test_greedy_takes_the_best(logits: Any) -> None:
    assert draw(keras_hub.samplers.GreedySampler(), logits)[np.argmax(logits)] == 1


def test_two_temperatures_do_not_share_a_compiled_function(logits: Any) -> None:
    functions = FunctionCache()
    rows = keras.ops.convert_to_tensor(np.tile(logits, (500, 1)).astype("float32"))
    spread = []
    for temperature in (0.05, 20.0):
        sampler = keras_hub.samplers.RandomSampler(temperature=temperature)
        choose = TokenChooser(sampler, RowRandom([(1, i) for i in range(500)]), functions)
        spread.append(len(np.unique(keras.ops.convert_to_numpy(choose(rows)))))
    assert spread[0] < 3 and spread[1] == VOCABULARY


def test_keys_depend_on_the_row_alone() -> None:
    a, b = np.arange(4), np.arange(5)
    keys = row_keys(7, [[a], [b], [a], [a, b]])
    assert len(set(keys)) == 4
    assert row_keys(7, [[b]]) == [keys[1]] and row_keys(8, [[b]]) != [keys[1]]
    with pytest.raises(ValueError, match="2 prompts"):
        row_keys([1, 2, 3], [[a], [b]])


def test_random_numbers_stay_below_one() -> None:
    stream = RowRandom([(i,) for i in range(2000)])
    values = np.concatenate([stream.next() for _ in range(50)])
    assert values.min() >= 0 and values.max() < 1 and values.dtype == np.float32


def test_unknown_samplers_are_refused() -> None:
    with pytest.raises(ValueError, match="return_all_beams"):
        get_sampler(keras_hub.samplers.BeamSampler(return_all_beams=True))
