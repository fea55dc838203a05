"""A reply between threads."""

from __future__ import annotations

from typing import Any

import pytest

from dl_techniques.errors import ServingError
from dl_techniques.models.vlm.fast_vlm.answer.rows.answer_text import AnswerText
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_choice import AnswerRow
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings
from dl_techniques.serving.questions import make_question
from dl_techniques.serving.replies import Reply

pytestmark = pytest.mark.once
STOP = (0,)


def letters(ids: Any) -> str:
    """1 is an `a`; 99 is half a character; what ends an answer has no text."""
    return "".join("\ufffd" if i == 99 else chr(96 + i) for i in ids if i not in STOP)


def reply(model: Any, limit: int = 5, stop: str = "", **more: Any) -> Reply:
    messages = [{"role": "user", "content": "Why?"}]
    settings = RowSettings(max_new_tokens=limit, **({"stop": stop} if stop else {}))
    question = make_question(model, messages, settings=settings)
    return Reply(question, AnswerText(letters, settings.stop), AnswerRow(settings), **more)


def write(made: Reply, tokens: list[int]) -> list[bool]:
    ended = []
    for token in tokens:
        made.row.tokens.append(token)
        ended.append(made.take(token, STOP))
    return ended


def test_how_answers_end(model: Any) -> None:
    made = reply(model)
    assert write(made, [1, 2, 0]) == [False, False, True]
    assert list(made) == ["a", "b"] and made.finish_reason == "stop"
    made = reply(model, limit=2)
    assert write(made, [1, 99]) == [False, True]
    assert made.join() == "a\ufffd" and made.finish_reason == "length"
    made = reply(model, stop="cd")
    assert write(made, [1, 3, 4]) == [False, False, True]
    assert list(made) == ["a"] and made.finish_reason == "stop" and made.text == "a"


def test_the_last_piece_is_heard(model: Any) -> None:
    pieces: list[Any] = []
    made = reply(model, listener=pieces.append)
    write(made, [1])
    made.finish("cancelled")
    made.finish("error", ServingError("late"))
    assert [(p.text, p.tokens, p.last) for p in pieces] == [("a", 1, False), ("", 1, True)]
    assert made.error is None and made.finish_reason == "cancelled"


def test_errors_come_after_the_pieces(model: Any) -> None:
    made = reply(model)
    write(made, [1])
    made.finish("error", ServingError("the model failed"))
    assert next(made) == "a"
    with pytest.raises(ServingError, match="failed"):
        next(made)
    assert made.times.first is not None and made.times.ended is not None
