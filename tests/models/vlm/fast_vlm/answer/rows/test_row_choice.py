"""Tokens chosen row by row: as transformers' processors and the compiled samplers would."""

from __future__ import annotations

import keras
import keras_hub
import numpy as np
import pytest

from dl_techniques.models.vlm.fast_vlm.answer.finite import NOT_FINITE
from dl_techniques.models.vlm.fast_vlm.answer.rows.penalties import Penalties
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_choice import AnswerRow, choose_tokens
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings, settings_of
from dl_techniques.models.vlm.fast_vlm.answer.sampling import RowRandom, TokenChooser
from dl_techniques.runtime.compile import FunctionCache

VOCABULARY = 23
PROMPT = [3, 5, 7, 3, 5, 9, 1]


def many_logits(steps: int, seed: int = 0, vocabulary: int = VOCABULARY) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (steps, vocabulary)).astype("float32")


def processors(settings: RowSettings, prompt: int, stop: int | None) -> list:
    """The same settings in `transformers`."""
    processor = pytest.importorskip("transformers.generation.logits_process")
    found = []
    if settings.repetition_penalty != 1.0:
        found.append(processor.RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        found.append(processor.NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    if settings.min_new_tokens and stop is not None:
        found.append(
            processor.MinNewTokensLengthLogitsProcessor(
                prompt, settings.min_new_tokens, stop, device="cpu"
            )
        )
    return found


@pytest.mark.once
@pytest.mark.parametrize(
    "options",
    [
        {"repetition_penalty": 1.7},
        {"repetition_penalty": 0.6},
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2},
        {"no_repeat_ngram_size": 3},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2, "min_new_tokens": 6},
    ],
)
def test_penalties_are_those_of_transformers(options: dict) -> None:
    """Step by step over an answer of few tokens, so that everything repeats."""
    torch = pytest.importorskip("torch")
    settings = RowSettings(**options)
    stop = 21 if "min_new_tokens" in options else None
    penalties = Penalties(settings, PROMPT, [] if stop is None else [stop])
    answer: list[int] = []
    changes = 0
    for logits in many_logits(30):
        ids = torch.tensor([[*PROMPT, *answer]])
        expected = torch.tensor(logits[None].copy())
        for process in processors(settings, len(PROMPT), stop):
            expected = process(ids, expected)
        got = penalties.apply(logits, answer)
        np.testing.assert_array_equal(got, expected[0].numpy())
        changes += int((got != logits).any())
        token = (3, 5, 7)[int(np.argmax(logits[:3]))]
        answer.append(token)
        penalties.add(token)
    assert changes >= 6


@pytest.mark.once
def test_presence_and_frequency_penalties() -> None:
    """`logit - (count > 0) * presence - count * frequency`, over the answer alone."""
    settings = RowSettings(presence_penalty=0.5, frequency_penalty=0.25)
    penalties = Penalties(settings, PROMPT, [])
    answer = [4, 4, 8, 4]
    for token in answer:
        penalties.add(token)
    (logits,) = many_logits(1)
    counts = np.bincount(answer, minlength=VOCABULARY)
    expected = logits - (counts > 0) * 0.5 - counts * 0.25
    np.testing.assert_allclose(penalties.apply(logits, answer), expected, rtol=1e-6)


@pytest.mark.once
def test_no_penalty_keeps_an_answer_from_ending() -> None:
    """Prompts hold stop tokens: transformers would forbid them for good."""
    settings = RowSettings(
        repetition_penalty=5.0, no_repeat_ngram_size=1, presence_penalty=3.0, frequency_penalty=3.0
    )
    penalties = Penalties(settings, [1, 2, 3], stop_ids=[2])
    (logits,) = many_logits(1)
    changed = penalties.apply(logits, [])
    assert changed[2] == logits[2]
    assert np.isneginf(changed[[1, 3]]).all()


@pytest.mark.once
def test_where_everything_was_written_nothing_is_forbidden() -> None:
    penalties = Penalties(RowSettings(no_repeat_ngram_size=1), range(VOCABULARY), ())
    (logits,) = many_logits(1)
    np.testing.assert_array_equal(penalties.apply(logits, []), logits)


@pytest.mark.once
def test_nothing_ends_an_answer_before_its_least_length() -> None:
    row = AnswerRow(RowSettings(min_new_tokens=2), PROMPT, stop_ids=[0])
    logits = np.array([[9.0, 1, 2]], "float32")
    assert [int(choose_tokens(logits, [row])[0]) for _ in range(3)] == [2, 2, 0]


SAMPLERS = {
    "random": keras_hub.samplers.RandomSampler(temperature=0.7),
    "top_k": keras_hub.samplers.TopKSampler(k=5, temperature=1.3),
    "top_p": keras_hub.samplers.TopPSampler(p=0.8),
    "top_p_within_k": keras_hub.samplers.TopPSampler(p=0.9, k=6, temperature=2.0),
    "greedy": keras_hub.samplers.GreedySampler(),
}


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_row_draws_what_the_compiled_sampler_draws(name: str) -> None:
    """Same logits, same random numbers, same tokens: in a large vocabulary too."""
    sampler = SAMPLERS[name]
    for vocabulary in (VOCABULARY, 700):
        logits = many_logits(40, vocabulary=vocabulary)
        keys = [(11, i) for i in range(len(logits))]
        rows = [AnswerRow(RowSettings(**settings_of(sampler)), key=key) for key in keys]
        compiled = TokenChooser(sampler, RowRandom(keys), FunctionCache())
        for _ in range(3):
            expected = keras.ops.convert_to_numpy(compiled(keras.ops.convert_to_tensor(logits)))
            np.testing.assert_array_equal(choose_tokens(logits, rows), expected)


@pytest.mark.once
def test_a_rows_draws_do_not_depend_on_its_company() -> None:
    settings = RowSettings(temperature=1.0, seed=4)
    steps = many_logits(8)
    alone, together = AnswerRow(settings), AnswerRow(settings)
    others = [AnswerRow(RowSettings(temperature=2.0, seed=i)) for i in range(3)]
    for i, logits in enumerate(steps):
        choose_tokens(logits[None], [alone])
        batch = many_logits(4, seed=i)
        batch[i % 4] = logits
        rows: list[AnswerRow | None] = list(others)
        rows.insert(i % 4, together)
        choose_tokens(batch, rows)
    assert alone.tokens == together.tokens and len(set(alone.tokens)) > 2


@pytest.mark.once
def test_a_seed_and_none() -> None:
    def answer(seed: int | None) -> list[int]:
        row = AnswerRow(RowSettings(temperature=1.0, seed=seed))
        for logits in many_logits(20):
            choose_tokens(logits[None], [row])
        return row.tokens

    assert answer(3) == answer(3) != answer(4)
    assert answer(None) != answer(None)
    keras.utils.set_random_seed(7)
    first = answer(None)
    keras.utils.set_random_seed(7)
    assert answer(None) == first


@pytest.mark.once
def test_top_p_takes_the_fewest_tokens_in_a_flat_vocabulary() -> None:
    """More of them than are sorted first."""
    logits = np.linspace(0, 1e-3, 2000, dtype="float32")[None]
    probabilities = np.exp(logits[0].astype("float64"))
    sums = np.cumsum(np.sort(probabilities / probabilities.sum())[::-1])
    kept = 1 + int(np.searchsorted(sums, 0.5))
    tokens = []
    for seed in range(300):
        row = AnswerRow(RowSettings(temperature=1.0, top_p=0.5, seed=seed))
        tokens.append(int(choose_tokens(logits, [row])[0]))
    assert min(tokens) >= 2000 - kept and min(tokens) < 1300


@pytest.mark.once
def test_log_probabilities_are_the_models_own() -> None:
    """Before penalties and temperature, whatever was drawn."""
    settings = RowSettings(temperature=1.5, repetition_penalty=2.0, logprobs=3, seed=1)
    row = AnswerRow(settings, PROMPT)
    steps = many_logits(6)
    for logits in steps:
        choose_tokens(logits[None], [row])
    wide = steps.astype("float64")
    expected = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    assert [known.token for known in row.logprobs] == row.tokens
    for known, logprobs in zip(row.logprobs, expected, strict=True):
        best = np.argsort(-logprobs)[:3]
        assert known.logprob == pytest.approx(logprobs[known.token])
        assert [token for token, _ in known.top] == best.tolist()
        np.testing.assert_allclose([value for _, value in known.top], logprobs[best])


@pytest.mark.once
def test_places_without_a_row_and_broken_logits() -> None:
    logits = many_logits(3)
    logits[1, 4] = np.nan
    rows = [None, AnswerRow(RowSettings()), AnswerRow(RowSettings())]
    tokens = choose_tokens(logits, rows)
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [0, NOT_FINITE, int(logits[2].argmax())]
    assert rows[1] is not None and rows[1].tokens == []
