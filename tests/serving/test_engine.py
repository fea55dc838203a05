"""The engine's answers are those of `generate` alone, whatever shares the batch and whenever."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from dl_techniques.errors import PromptError, QueueFullError, ServingError, StoppedError
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings
from dl_techniques.serving.engine import Engine, EngineOptions
from dl_techniques.serving.questions import make_question
from tests.models.vlm.fast_vlm.small_model import make_model, pictures

TEXTS = (
    "Why?",
    "What is a red cube here?",
    "Why is the cat on the mat, and not the ball? " * 3,
    "what is this? a red cube and a blue ball",
)
PICTURES = pictures(3, 5)


def asked(i: int) -> tuple[str, list[Any], RowSettings]:
    """The i-th of many different requests."""
    images = [[], [PICTURES[0]], [PICTURES[1], PICTURES[2]], [PICTURES[1]]][i % 4]
    settings = [
        {},
        {"temperature": 0.9, "seed": i},
        {"temperature": 1.1, "top_p": 0.8, "seed": 3},
        {"repetition_penalty": 1.3, "logprobs": 2},
        {"stop": "e"},
    ][i % 5]
    return TEXTS[i % 3], images, RowSettings(**settings, max_new_tokens=1 + 5 * i % 17)


def alone(model: Any, text: str, images: list[Any], settings: RowSettings) -> Any:
    """The answer of `generate`, with its tokens."""
    inputs = {"prompts": text, "images": images or None}
    return model.generate(inputs, settings=settings, return_logprobs=settings.logprobs or 0)


def question(model: Any, text: str = "Why?", images: Any = (), **settings: Any) -> Any:
    messages = [{"role": "user", "content": text}]
    return make_question(model, messages, images, RowSettings(**settings))


def fill(model: Any, engine: Engine) -> list[Any]:
    """Takes all rows with long answers."""
    replies = []
    for _ in range(engine.options.rows):
        replies.append(engine.submit(question(model, max_new_tokens=150)))
        while replies[-1].times.started is None:
            time.sleep(0.001)
    return replies


def leave(engine: Engine, replies: list[Any]) -> None:
    for reply in replies:
        reply.cancel()
    for reply in replies:
        reply.join()
    while engine.running:
        time.sleep(0.001)


def test_mixed_requests_equal_generate(model, engine):
    requests = [asked(i) for i in range(40)]
    expected = [alone(model, *request) for request in requests]
    rng = np.random.default_rng(1)
    replies = []
    for i, (text, images, settings) in enumerate(requests):
        while engine.waiting >= engine.options.waiting:
            time.sleep(0.002)
        messages = [{"role": "user", "content": text}]
        replies.append(engine.submit(make_question(model, messages, images, settings)))
        if i % 7 == 0:
            time.sleep(float(rng.uniform(0, 0.05)))
    for reply, answer in zip(replies, expected, strict=True):
        assert reply.join() == answer.text
        assert reply.token_ids == answer.token_ids
        assert reply.finish_reason == answer.finish_reason
    assert {reply.finish_reason for reply in replies} == {"stop", "length"}
    known, logprobs = replies[3].row.logprobs, expected[3].logprobs
    assert [k.token for k in known] == [k.token for k in logprobs] and len(known[0].top) == 2
    np.testing.assert_allclose([k.logprob for k in known], [k.logprob for k in logprobs], atol=1e-4)


def test_a_second_question_about_a_picture_reads_what_is_new(model, engine):
    picture = pictures(1, 99)
    first = "What is a red cube here? And what is the blue ball on the mat, and why is it there? "
    engine.submit(question(model, first, picture, max_new_tokens=3)).join()
    encoded = engine._batch.store.encoded
    again = engine.submit(question(model, first + "Why?", picture, max_new_tokens=4))
    expected = alone(model, first + "Why?", picture, RowSettings(max_new_tokens=4))
    assert again.join() == expected.text and again.token_ids == expected.token_ids
    assert engine._batch.store.encoded == encoded
    assert again.cached > 40


def test_the_same_beginning_of_other_pictures_is_not_taken_for_it(model, engine):
    one, two = pictures(2, 123)
    for picture in (one, two, one):
        reply = engine.submit(question(model, "What is it?", [picture], max_new_tokens=6))
        expected = alone(model, "What is it?", [picture], RowSettings(max_new_tokens=6))
        assert reply.join() == expected.text and reply.token_ids == expected.token_ids


def test_a_conversation_goes_on_where_it_was(model, engine):
    asked_first = question(model, "Why is the cat on the mat?", pictures(1, 4), max_new_tokens=5)
    reply = engine.submit(asked_first)
    messages = [
        {"role": "user", "content": "<image>\nWhy is the cat on the mat?"},
        {"role": "assistant", "content": reply.join() or "x"},
        {"role": "user", "content": "And why not?"},
    ]
    settings = RowSettings(max_new_tokens=5)
    second = engine.submit(make_question(model, messages, pictures(1, 4), settings))
    inputs = {"messages": messages, "images": pictures(1, 4)}
    expected = model.generate(inputs, settings=settings, return_logprobs=0)
    assert second.join() == expected.text and second.token_ids == expected.token_ids
    assert second.cached >= len(asked_first.token_ids) - 1


def test_cancelling_takes_two_steps_at_most(model, engine):
    at, ended = [], threading.Event()

    def listen(piece):
        at.append(piece.tokens)
        if len(at) == 3:
            reply.cancel()
        if piece.last:
            ended.set()

    reply = engine.submit(question(model, max_new_tokens=150), listen)
    assert ended.wait(60)
    assert reply.finish_reason == "cancelled"
    assert at[-1] <= at[2] + 2 and len(reply.token_ids) == at[-1]


def test_questions_that_nobody_waits_for_are_never_started(model, engine):
    long = fill(model, engine)
    waiting = [engine.submit(question(model, max_new_tokens=9)) for _ in range(6)]
    for reply in waiting:
        reply.cancel()
    for reply in waiting:
        reply.join()
        assert reply.finish_reason == "cancelled"
        assert reply.times.started is None and reply.token_ids == []
    leave(engine, long)


def test_the_queue_is_bounded(model, engine):
    replies = fill(model, engine)
    with pytest.raises(QueueFullError, match="6 questions wait already"):
        for _ in range(12):
            replies.append(engine.submit(question(model, max_new_tokens=150)))
    assert len(replies) == 10
    leave(engine, replies)


def test_out_of_time_ends_with_what_there_is(model, engine):
    reply = engine.submit(question(model, max_new_tokens=150), seconds=0.0)
    reply.join()
    assert reply.finish_reason == "length" and len(reply.token_ids) <= 1


def test_an_error_ends_its_answers_and_no_others(model, engine, monkeypatch):
    monkeypatch.setattr(engine._batch._rows, "step", lambda *args: 1 / 0)
    with pytest.raises(ServingError, match="the model failed: ZeroDivisionError"):
        engine.submit(question(model, max_new_tokens=5)).join()
    monkeypatch.undo()
    expected = alone(model, "Why?", [], RowSettings(max_new_tokens=5))
    assert engine.submit(question(model, max_new_tokens=5)).join() == expected.text


def test_numbers_that_are_not_finite_end_one_answer(model, engine):
    wrong = question(model, "What?", pictures(1, 77), max_new_tokens=5)
    store = engine._batch.store
    store._keep(wrong.digests[0], np.full((4, model.backbone.hidden_dim), np.nan, "float32"))
    well, bad = engine.submit(question(model, max_new_tokens=30)), engine.submit(wrong)
    with pytest.raises(ArithmeticError, match="NaN or infinities"):
        bad.join()
    assert well.join() == alone(model, "Why?", [], RowSettings(max_new_tokens=30)).text
    store._kept.clear()
    store.nbytes = 0
    for _ in range(5):  # whoever gets the row
        reply = engine.submit(question(model, "What is a ball?", max_new_tokens=5))
        assert reply.join() == alone(model, "What is a ball?", [], reply.question.settings).text


@pytest.mark.slow_on_jax
def test_decoders_whose_rows_cannot_join_answer_as_well():
    model = make_model("opt")
    engine = Engine(model, EngineOptions(rows=2, piece=16))
    with pytest.raises(StoppedError, match="starting"):
        engine.submit(question(model))
    engine.start()
    assert engine.wait_until_ready(300) and not engine._batch.joins
    requests = [asked(i) for i in range(0, 12, 2)]
    expected = [alone(model, *request) for request in requests]
    replies = [engine.submit(question(model, t, p, **vars(s))) for t, p, s in requests]
    for reply, answer in zip(replies, expected, strict=True):
        assert reply.join() == answer.text and reply.token_ids == answer.token_ids
    late = engine.submit(question(model, max_new_tokens=100))
    engine.close(0.0)
    with pytest.raises(StoppedError, match="could not finish"):
        late.join()
    with pytest.raises(StoppedError, match="stopping"):
        engine.submit(question(model))


def test_options_and_prompts_that_mean_nothing(model):
    for options in ({"rows": 0}, {"piece": 48}, {"context": 3}):
        with pytest.raises(ServingError, match=next(iter(options))):
            EngineOptions(**options)
    with pytest.raises(PromptError, match="leaves no room for an answer in the context of 64"):
        make_question(model, [{"role": "user", "content": TEXTS[2]}], context=64)
