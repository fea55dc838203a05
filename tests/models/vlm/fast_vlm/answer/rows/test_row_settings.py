"""Settings of a row: what they may be, and the samplers they stand for."""

from __future__ import annotations

import keras_hub
import pytest

from dl_techniques.errors import PromptError, SamplingError
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import (
    RowSettings,
    sampler_of,
    settings_of,
)

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_k", 0),
        ("top_k", 2.5),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_p", "all"),
        ("seed", -1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("inf")),
        ("repetition_penalty", None),
        ("no_repeat_ngram_size", -1),
        ("presence_penalty", float("nan")),
        ("frequency_penalty", "much"),
        ("min_new_tokens", -3),
        ("max_new_tokens", 0),
        ("logprobs", True),
        ("stop", 5),
        ("stop", ["a", ""]),
    ],
)
def test_numbers_that_mean_nothing(name: str, wrong: object) -> None:
    with pytest.raises(SamplingError, match=f"{'stop' if name == 'stop' else name}.* got "):
        RowSettings(**{name: wrong})


def test_stop_texts() -> None:
    assert RowSettings(stop="ab").stop == ("ab",)
    assert RowSettings(stop=["a", "b"]).stop == ("a", "b")
    for wrong in (b"ab", ["a", None], ["\ud800"]):
        with pytest.raises(PromptError, match="^stop text [01] "):
            RowSettings(stop=wrong)


@pytest.mark.parametrize(
    "sampler",
    [
        keras_hub.samplers.GreedySampler(),
        keras_hub.samplers.RandomSampler(temperature=0.5),
        keras_hub.samplers.TopKSampler(k=7, temperature=0.5),
        keras_hub.samplers.TopPSampler(p=0.4, k=9),
        keras_hub.samplers.TopPSampler(p=0.4),
    ],
)
def test_a_sampler_and_back(sampler: keras_hub.samplers.Sampler) -> None:
    back = sampler_of(RowSettings(**settings_of(sampler)))
    assert type(back) is type(sampler)
    for name in ("temperature", "k", "p"):
        assert getattr(back, name, None) == getattr(sampler, name, None)


def test_a_cold_sampler_is_greedy_and_a_large_k_is_all() -> None:
    cold = keras_hub.samplers.TopKSampler(k=7, temperature=0.0)
    assert RowSettings(**settings_of(cold)).greedy
    warm = RowSettings(temperature=1.0, top_k=50)
    assert type(sampler_of(warm, vocabulary=50)) is keras_hub.samplers.RandomSampler
    assert type(sampler_of(warm, vocabulary=51)) is keras_hub.samplers.TopKSampler


def test_samplers_with_ways_of_their_own() -> None:
    class Own(keras_hub.samplers.Sampler):
        pass

    for sampler in (keras_hub.samplers.BeamSampler(num_beams=2), Own()):
        with pytest.raises(SamplingError, match=f"^{type(sampler).__name__} goes with none of"):
            settings_of(sampler)
