"""NaN and infinities end in an error that names where they begin, never in an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import keras_hub
import numpy as np
import pytest

from dl_techniques import Chat
from dl_techniques.errors import DLTechniquesError, NonFiniteError
from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLM
from dl_techniques.models.vlm.fast_vlm.answer.finite import NOT_FINITE
from dl_techniques.models.vlm.fast_vlm.answer.phases import Phases
from dl_techniques.models.vlm.fast_vlm.answer.sampling import RowRandom, TokenChooser
from dl_techniques.runtime.compile import FunctionCache
from tests.models.vlm.fast_vlm.small_model import make_model, pictures

PICTURE = pictures(1, 1)
WITH, WITHOUT = {"prompts": "Why?", "images": PICTURE}, {"prompts": "Why?"}
SAMPLERS = ["greedy", "top_k", "top_p", "random", "beam"]


class Own(keras_hub.samplers.Sampler):
    """A user's own."""

    def get_next_token(self, probabilities: Any) -> Any:
        return keras.ops.argmax(probabilities, axis=-1)


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.fixture
def broken(model: Any) -> Iterator[Any]:
    """Spoils single weights of the model, and mends them afterwards."""
    kept = []

    def spoil(weight: Any, place: Any, value: Any) -> None:
        values = keras.ops.convert_to_numpy(weight)
        kept.append((weight, values))
        values = values.copy()
        values[place] = value
        weight.assign(values)

    yield spoil
    for weight, values in reversed(kept):
        weight.assign(values)


def bias_of(model: Any) -> Any:
    return next(w for w in model.backbone.projector.weights if w.path.endswith("bias"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sampler", [*SAMPLERS, Own()])
def test_a_spoilt_projector(model: Any, broken: Any, sampler: Any, value: Any) -> None:
    bias = bias_of(model)
    broken(bias, 0, value)
    with pytest.raises(NonFiniteError, match="^the picture features are not finite") as caught:
        model.generate(WITH, max_new_tokens=3, sampler=sampler)
    assert f"the weight '{bias.path}' is not" in str(caught.value)
    assert isinstance(caught.value, DLTechniquesError) and "\n" not in str(caught.value)
    assert isinstance(model.generate(WITHOUT, max_new_tokens=3, sampler=sampler), str)


@pytest.mark.parametrize("sampler", ["greedy", "beam"])
def test_a_batch_names_the_prompt(model: Any, broken: Any, sampler: str) -> None:
    broken(bias_of(model), 0, np.nan)
    ask = {"prompts": ["Why?", "What is it?"], "images": [None, PICTURE]}
    with pytest.raises(NonFiniteError, match="^prompt 1: the picture features"):
        model.generate(ask, max_new_tokens=3, sampler=sampler)


def test_prefill_is_named(model: Any, broken: Any) -> None:
    norm = model.backbone.text_backbone.layer_norm.weights[0]
    broken(norm, 3, np.nan)
    for ask in (WITH, WITHOUT):
        with pytest.raises(NonFiniteError, match="^the logits of prefill are not finite") as caught:
            model.generate(ask, max_new_tokens=3)
        assert norm.path in str(caught.value)


@pytest.fixture
def second_step(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Spoils the logits of a row in the second step."""

    def spoil(row: Any) -> Any:
        steps, real = [], Phases.decode_step

        def decode_step(self: Any, tokens: Any, state: Any) -> Any:
            logits, state = real(self, tokens, state)
            steps.append(keras.ops.convert_to_numpy(tokens))
            if len(steps) == 2:
                logits = np.array(keras.ops.convert_to_numpy(logits))
                logits[row, -1] = np.nan
            return logits, state

        monkeypatch.setattr(Phases, "decode_step", decode_step)
        return steps

    return spoil


@pytest.mark.parametrize("sampler", ["greedy", "top_k", "beam"])
def test_the_step_is_named(model: Any, second_step: Any, sampler: str) -> None:
    second_step(0)
    options = {"max_new_tokens": 6, "stop_token_ids": None, "sampler": sampler}
    with pytest.raises(NonFiniteError, match="^the logits of step 2 .* load the model as float32"):
        model.generate(WITH, **options)


def test_rows_that_are_done_harm_nobody(model: Any, second_step: Any) -> None:
    """The first row ends with its first token; what it goes on computing is looked at by no one."""
    bare = FastVLMCausalLM(model.backbone)
    inputs = model.preprocessor.generate_preprocess(["Why?", "What is the red ball?"])
    first = bare.generate(inputs, stop_token_ids=None, max_new_tokens=1)["token_ids"][0, 0]
    expected = bare.generate(inputs, stop_token_ids=[first], max_new_tokens=5)
    assert expected["padding_mask"].sum(axis=1).tolist() == [1, 5]
    steps = second_step(0)
    got = bare.generate(inputs, stop_token_ids=[first], max_new_tokens=5)
    assert (got["token_ids"] == expected["token_ids"]).all()
    assert len(steps) == 4 and min(s.min() for s in steps) >= 0


def test_a_chat_goes_on_when_the_weights_are_mended(model: Any, broken: Any) -> None:
    chat = Chat(model, max_new_tokens=3)
    expected = "".join(Chat(model, max_new_tokens=3).ask("Why?", images=PICTURE))
    bias = bias_of(model)
    values = keras.ops.convert_to_numpy(bias)
    broken(bias, 1, np.nan)
    with pytest.raises(NonFiniteError, match="picture features"):
        next(model.stream(WITH, max_new_tokens=3))
    stream = chat.ask("Why?", images=PICTURE)
    with pytest.raises(NonFiniteError, match="picture features"):
        next(stream)
    assert chat.messages == []
    bias.assign(values)
    assert "".join(chat.ask("Why?")) == expected


def test_pixels_that_are_not_finite(model: Any) -> None:
    """Arrays of one's own: no weight is to blame."""
    inputs = model.preprocessor.generate_preprocess(WITH)
    inputs["images"] = np.full_like(inputs["images"], np.nan)
    bare = FastVLMCausalLM(model.backbone)
    with pytest.raises(NonFiniteError, match="picture features .* check the pixels"):
        bare.generate(inputs, stop_token_ids=None, max_new_tokens=2)


@pytest.mark.parametrize("kind", ["GreedySampler", "TopKSampler", "TopPSampler", "RandomSampler"])
def test_only_the_spoilt_rows_are_marked(kind: str) -> None:
    logits = np.random.default_rng(0).normal(size=(5, 9)).astype("float32")
    for row, value in ((1, np.nan), (3, -np.inf), (4, np.inf)):
        logits[row, 2] = value
    sampler = getattr(keras_hub.samplers, kind)()
    choose = TokenChooser(sampler, RowRandom([(i,) for i in range(5)]), FunctionCache())
    for _ in range(10):  # on PyTorch recorded from the ninth on
        tokens = keras.ops.convert_to_numpy(choose(keras.ops.convert_to_tensor(logits)))
        assert (tokens == NOT_FINITE).tolist() == [False, True, False, True, True]
        assert (tokens[[0, 2]] >= 0).all()


def test_greedy_answers_draw_no_numbers(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are made of all pixels of a batch."""
    from dl_techniques.models.vlm.fast_vlm.answer.requests import Request

    made = []
    monkeypatch.setattr(Request, "contents", lambda self: made.append(self) or [[np.zeros(1)]])
    model.generate(WITH, max_new_tokens=2)
    model.generate(WITH, max_new_tokens=2, sampler=keras_hub.samplers.TopKSampler(temperature=0))
    model.generate(WITH, max_new_tokens=2, sampler="beam")
    assert not made
    model.generate(WITH, max_new_tokens=2, sampler="top_k")
    assert made
