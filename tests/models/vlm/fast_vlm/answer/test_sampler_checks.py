"""Numbers of samplers: what is greedy, what is the whole vocabulary, what is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import pytest

from dl_techniques import Chat
from dl_techniques.errors import DLTechniquesError, SamplingError
from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLM
from dl_techniques.models.vlm.fast_vlm.answer.sampler_checks import check_seed
from dl_techniques.models.vlm.fast_vlm.answer.sampling import RowRandom, TokenChooser, get_sampler
from dl_techniques.runtime.compile import FunctionCache
from tests.models.vlm.fast_vlm.small_model import make_model, pictures

TopK, TopP = keras_hub.samplers.TopKSampler, keras_hub.samplers.TopPSampler
Random, Beam = keras_hub.samplers.RandomSampler, keras_hub.samplers.BeamSampler
ASK = {"prompts": "Why?", "images": pictures(1, 1)}
NAN, INF = float("nan"), float("inf")


class Drawn(keras_hub.samplers.Sampler):
    """A user's own sampler, which draws from all tokens."""

    def get_next_token(self, probabilities: Any) -> Any:
        noise = keras.random.uniform(keras.ops.shape(probabilities))
        return keras.ops.argmax(keras.ops.log(probabilities) - keras.ops.log(-keras.ops.log(noise)))


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.mark.parametrize("kind", [TopK, TopP, Random, Beam, Drawn])
@pytest.mark.parametrize("temperature", [0, np.float32(1e-39), 1e-30])
def test_no_temperature_is_greedy(model: Any, kind: Any, temperature: Any) -> None:
    sampler = kind(temperature=temperature)
    expected = model.generate(ASK, max_new_tokens=4, sampler="greedy")
    assert model.generate(ASK, max_new_tokens=4, sampler=sampler, seed=1) == expected


@pytest.mark.parametrize("kind", [TopK, TopP, Random])
@pytest.mark.parametrize("logits", [[3.0, 7, 7, -9], [0.0, -1e5, 4e4, 4e4], [-5e5, -2e5, -2e5, 0]])
def test_division_that_overflows_is_greedy(kind: Any, logits: Any) -> None:
    """Of equal tokens the first: a draw among them would not be greedy."""
    more = {} if kind is Random else {"k": 4}
    sampler = kind(temperature=1.2e-38, **more)
    random = RowRandom([(0, i) for i in range(50)])
    choose = TokenChooser(sampler, random, FunctionCache())
    got = choose(keras.ops.convert_to_tensor(np.tile(logits, (50, 1)).astype("float32")))
    assert set(keras.ops.convert_to_numpy(got).tolist()) == {int(np.argmax(logits))}


def test_beams_whose_division_overflows_are_greedy(model: Any) -> None:
    expected = model.generate(ASK, max_new_tokens=4, sampler="greedy")
    for temperature in (2e-38, 1e-37):
        beam = Beam(num_beams=3, temperature=temperature)
        assert model.generate(ASK, max_new_tokens=4, sampler=beam) == expected


def test_a_k_above_the_vocabulary_is_all_of_it(model: Any) -> None:
    ask = lambda sampler: model.generate(ASK, max_new_tokens=6, sampler=sampler, seed=2)  # noqa: E731
    size = model.preprocessor.tokenizer.vocabulary_size()
    assert ask(TopK(k=999_999)) == ask(TopK(k=size)) == ask(TopP(p=1.0))
    assert ask(TopP(p=0.5, k=999_999)) == ask(TopP(p=0.5))


WRONG = [
    (lambda: TopK(temperature=-1), "temperature of TopKSampler must be .* got -1"),
    (lambda: TopP(temperature=NAN), "temperature of TopPSampler must be .* got nan"),
    (lambda: Random(temperature=INF), "temperature of RandomSampler must be .* got inf"),
    (lambda: Random(temperature="warm"), "temperature of RandomSampler must be .* got 'warm'"),
    (lambda: Beam(temperature=-0.5), "temperature of BeamSampler"),
    (lambda: Beam(num_beams=0), "num_beams of BeamSampler must be .* got 0"),
    (lambda: Drawn(temperature=NAN), "temperature of Drawn"),
    (lambda: TopK(k=0), "k of TopKSampler must be a whole number of at least 1, got 0"),
    (lambda: TopK(k=-3), "got -3"),
    (lambda: TopK(k=2.5), r"got 2\.5"),
    (lambda: TopK(k=None), "got None"),
    (lambda: TopP(k=0), "k of TopPSampler must be .* or None, got 0"),
    (lambda: TopP(p=0), "p of TopPSampler must be above 0 and at most 1, got 0"),
    (lambda: TopP(p=1.5), r"got 1\.5"),
    (lambda: TopP(p=-0.1), r"got -0\.1"),
    (lambda: TopP(p=NAN), "got nan"),
    (lambda: "topk", r"'topk' is unknown; use one of .*; did you mean 'top_k'\?"),
    (lambda: "Greedy", "did you mean 'greedy'"),
    (lambda: "x" * 1000, "^.{,250}$"),
    (lambda: {"class_name": "top_k", "config": {"b": 1}}, "no sampler can be made of"),
    (lambda: 7, "got 7"),
    (lambda: TopK, "an object of keras_hub.samplers, got <class"),
    (lambda: "contrastive", "ContrastiveSampler"),
    (lambda: "speculative", "."),
]


@pytest.mark.once
@pytest.mark.parametrize(("make", "match"), WRONG)
def test_samplers_that_mean_nothing(model: Any, make: Any, match: Any) -> None:
    """Wherever an answer can be asked for, and before the model starts."""
    other = FastVLMCausalLM(model.backbone, model.preprocessor)
    for ask in (
        get_sampler,
        lambda sampler: model.generate(ASK, sampler=sampler),
        lambda sampler: model.stream(ASK, sampler=sampler),
        lambda sampler: Chat(model, sampler=sampler),
        lambda sampler: other.compile(sampler=sampler),
    ):
        with pytest.raises(SamplingError, match=match) as caught:
            ask(make())
        assert "\n" not in str(caught.value)


@pytest.mark.once
@pytest.mark.parametrize("seed", [-5, 1.5, "x", [1, 2], [-1], True])
def test_seeds_that_mean_nothing(model: Any, seed: Any) -> None:
    for sampler in ("greedy", "top_k"):
        for ask in (
            lambda sampler: model.generate(ASK, sampler=sampler, seed=seed),
            lambda sampler: model.stream(ASK, sampler=sampler, seed=seed),
            lambda sampler: Chat(model, sampler=sampler, seed=seed),
        ):
            with pytest.raises(SamplingError, match="seed"):
                ask(sampler)


@pytest.mark.once
def test_the_seed_of_a_sampler_is_checked_too(model: Any) -> None:
    sampler = TopK()
    sampler.seed = -5  # on JAX the constructor itself does not take it
    with pytest.raises(SamplingError, match="seed must be a whole number of at least 0"):
        model.generate(ASK, sampler=sampler)
    assert check_seed(np.int64(3), 1) == 3 and check_seed(np.array([3, 4]), 2) == [3, 4]
    assert check_seed(2**70, 1) == 2**70 and check_seed(None, 1) is None
    with pytest.raises(SamplingError, match="seed 1 must be .* got -4"):
        check_seed([3, -4], 2)


@pytest.mark.once
def test_the_models_own_temperature(model: Any) -> None:
    assert FastVLMCausalLM(model.backbone, temperature=0.5).sampler.temperature == 0.5
    for temperature in (-1, NAN, INF):
        with pytest.raises(SamplingError, match="^temperature must be a finite number"):
            FastVLMCausalLM(model.backbone, temperature=temperature)
    assert issubclass(SamplingError, DLTechniquesError) and issubclass(SamplingError, ValueError)


@pytest.mark.once
def test_a_file_loads_whatever_its_sampler_says(model: Any, tmp_path: Path) -> None:
    """Files that were saved when nothing was checked; the answer is refused, not the file."""
    other = FastVLMCausalLM(model.backbone)
    other.compile()
    for sampler in (TopP(p=1.5), keras_hub.samplers.ContrastiveSampler()):
        other.sampler = sampler
        other.save(tmp_path / "model.keras")
        again = keras.models.load_model(tmp_path / "model.keras")
        assert type(again.sampler) is type(sampler)
        with pytest.raises(SamplingError):
            again.generate(model.preprocessor.generate_preprocess("Why?"))
