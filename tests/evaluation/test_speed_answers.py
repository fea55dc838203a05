"""Phases of an answer and turns of a conversation, on models whose times are known."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dl_techniques.evaluation.speed import as_numpy
from dl_techniques.evaluation.speed_answers import (
    Turn,
    WarmTimes,
    measure_turns,
    measure_warm,
    middle_of,
    middle_turns,
    picture_phases,
    second_over_first,
    time_stream,
)
from tests.helpers import relative_difference
from tests.models.vlm.fast_vlm import small_model

pytestmark = pytest.mark.once


def times(first_token: float, rate: float | None) -> WarmTimes:
    return WarmTimes(0.1, 0.2, 0.05, 0.3, 0.4, first_token, rate, 5)


def test_medians() -> None:
    middle = middle_of([times(1.0, 10.0), times(9.0, 30.0), times(2.0, 20.0)])
    assert (middle.first_token, middle.tokens_per_second, middle.tokens) == (2.0, 20.0, 5)
    assert middle_of([times(1.0, None), times(2.0, 20.0)]).tokens_per_second is None


class Stream:
    """Six tokens, one every 20 ms, after 50 ms."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.pieces = self.make()

    def make(self) -> Iterator[str]:
        for i in range(6):
            time.sleep(0.02 if i else 0.05)
            self.token_ids.append(i)
            yield "x"

    def __iter__(self) -> Iterator[str]:
        return self.pieces

    def __next__(self) -> str:
        return next(self.pieces)


def sleeper(seconds: float, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function, `seconds` later."""

    def slow(x: Any) -> Any:
        time.sleep(seconds)
        return function(x)

    return slow


class SlowModel:
    """A model whose phases take known times."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.preprocessor = SimpleNamespace(generate_preprocess=self.preprocess)
        same = SimpleNamespace(get=lambda key, function, part: function, refresh=lambda of: None)
        self.phases = SimpleNamespace(functions=same)
        parts = SimpleNamespace(
            vision_encoder=sleeper(0.03, lambda x: np.zeros((1, 2, 2, 3))),
            projector=sleeper(0.015, lambda x: np.zeros((1, 4, 8))),
            selector=lambda rows: rows,
        )
        self.backbone = SimpleNamespace(image_embedding=parts, variables=[])

    def preprocess(self, inputs: Any) -> dict[str, Any]:
        time.sleep(0.01)
        return {"images": np.zeros((1, 1, 4, 4, 3), "float32")}

    def prefill(self, arrays: Any, rows: Any, max_new_tokens: int) -> Any:
        time.sleep(0.02)
        assert rows.shape == (1, 4, 8)
        return np.array([[0.0, 1.0, 0.5]]), "state"

    def decode_step(self, tokens: Any, state: Any) -> Any:
        time.sleep(0.005)
        self.read += tokens.tolist()
        return np.zeros((1, 3)), "state"

    def stream(self, inputs: Any, max_new_tokens: int) -> Stream:
        return Stream()


def test_phases_of_a_warm_answer() -> None:
    model, calls = SlowModel(), []
    result = measure_warm(model, {"images": []}, 6, 2, calls.append)
    assert calls == [1, 1]
    assert result.preprocess >= 0.01
    assert result.encode >= 0.03
    assert result.project >= 0.015
    assert result.prefill >= 0.02
    assert result.first_decode >= 0.005
    assert result.first_token >= 0.05
    assert result.tokens == 6
    assert result.tokens_per_second is not None and 0 < result.tokens_per_second <= 50
    assert set(model.read) == {1}  # the likeliest token was read back


def test_no_repeats_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        measure_warm(SlowModel(), {"images": []}, 1, 0)


def test_the_two_steps_give_what_the_model_encodes() -> None:
    model = small_model.make_model()
    pictures = np.random.default_rng(0).uniform(0, 1, (1, 2, 32, 32, 3)).astype("float32")
    rows, encode, project = picture_phases(model, pictures)
    assert encode > 0 and project > 0
    assert relative_difference(rows, as_numpy(model.encode_images(pictures))) < 1e-6


def test_a_stream_is_timed_to_its_first_text() -> None:
    turn = time_stream(Stream())
    assert turn.tokens == 6 and turn.first_token >= 0.05
    assert turn.seconds_per_token is not None and turn.seconds_per_token >= 0.02


def test_a_conversation_encodes_its_picture_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, encoded = small_model.make_model(), []
    encode = model.encode_images
    monkeypatch.setattr(
        type(model), "encode_images", lambda self, x: encoded.append(len(x)) or encode(x)
    )
    (picture,) = small_model.pictures(1)
    turns = measure_turns(model, picture, ["What is this?", "Why?"], 3)
    assert encoded == [1]
    assert len(turns) == 2 and all(turn.tokens > 0 for turn in turns)
    assert second_over_first(turns) == turns[1].first_token / turns[0].first_token


def test_a_conversation_ends_where_nothing_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model.make_model()
    monkeypatch.setattr(type(model), "_detokenize", lambda self, ids: "")
    turns = measure_turns(model, small_model.pictures(1)[0], ["What is this?", "Why?"], 2)
    assert len(turns) == 1 and second_over_first(turns) is None


def test_turns_in_the_middle() -> None:
    talks = [
        [Turn(3.0, 0.1, 5), Turn(1.0, None, 1)],
        [Turn(1.0, 0.3, 7), Turn(2.0, 0.2, 3)],
        [Turn(2.0, 0.2, 6)],
    ]
    assert middle_turns(talks) == [Turn(2.0, 0.2, 6)]
    assert middle_turns(talks[:2])[1].seconds_per_token is None
