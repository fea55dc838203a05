"""Text pieces: whole characters, nothing lost, nothing twice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dl_techniques.models.vlm.fast_vlm import FastVLMTokenizer
from dl_techniques.models.vlm.fast_vlm.answer.rows.answer_text import AnswerText
from dl_techniques.models.vlm.fast_vlm.answer.streaming import TextStream, TokenLoop

TEXT = "Größe: 🦉 猫!\nté"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return FastVLMTokenizer.from_texts(["plain words only"] * 4, vocabulary_size=280)


class OneStepAtATime(TokenLoop):
    """Gives out a fixed answer instead of a model's."""

    def __init__(self, ids: Any) -> None:
        self._ids = iter(ids)
        self.state = "state"

    def __next__(self) -> Any:
        return np.array([next(self._ids)])


def stream_of(tokenizer: Any, ids: Any, **more: Any) -> Any:
    decode = lambda pending: tokenizer.detokenize(list(pending), skip_special_tokens=True)  # noqa: E731
    return TextStream(OneStepAtATime(ids), AnswerText(decode), **more)


def test_pieces_are_whole_characters(tokenizer: Any) -> None:
    ids = tokenizer.tokenize_plain(TEXT)
    assert len(ids) > len(TEXT)  # several tokens per character, or the test proves nothing
    pieces = list(stream_of(tokenizer, ids))
    assert "".join(pieces) == TEXT
    assert all("\ufffd" not in piece for piece in pieces)
    assert "🦉" in pieces


def test_an_unfinished_character_is_shown_at_the_end(tokenizer: Any) -> None:
    ids = tokenizer.tokenize_plain("a🦉")[:-1]
    stream = stream_of(tokenizer, ids)
    assert list(stream) == ["a", "\ufffd"] and stream.text == "a\ufffd"
    assert stream.text == tokenizer.detokenize(ids)


def test_control_tokens_are_not_shown(tokenizer: Any) -> None:
    stream = stream_of(tokenizer, [*tokenizer.tokenize_plain("ok"), tokenizer.end_token_id])
    assert "".join(stream) == "ok" and stream.token_ids[-1] == tokenizer.end_token_id


def test_the_end_is_announced_once(tokenizer: Any) -> None:
    ends = []
    ids = tokenizer.tokenize_plain("ab")
    stream = stream_of(tokenizer, ids, on_end=lambda s: ends.append(s.text))
    assert "".join(stream) == "ab"
    stream.close()
    assert ends == ["ab"] and list(stream) == []


def test_a_stream_can_be_closed_early(tokenizer: Any) -> None:
    ends = []
    ids = tokenizer.tokenize_plain("abc")
    stream = stream_of(tokenizer, ids, on_end=lambda s: ends.append(s.text))
    first = next(stream)
    stream.close()
    assert list(stream) == [] and ends == [first]
