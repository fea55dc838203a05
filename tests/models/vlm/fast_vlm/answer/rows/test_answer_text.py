"""Text pieces: whole characters, and never half a stop text."""

from __future__ import annotations

import itertools

import pytest

from dl_techniques.models.vlm.fast_vlm import FastVLMTokenizer
from dl_techniques.models.vlm.fast_vlm.answer.rows.answer_text import AnswerText, StopWatch

pytestmark = pytest.mark.once


def fed(stop: list[str], pieces: tuple[str, ...]) -> tuple[list[str], str | None]:
    """What a watch gives out for every piece and at the end, and what it found."""
    watch = StopWatch(stop)
    shown = [watch.feed(piece) for piece in pieces]
    return [*shown, watch.flush()], watch.hit


def splits(text: str) -> list[tuple[str, ...]]:
    """Every way to cut a text into pieces."""
    found = []
    for cuts in itertools.product((False, True), repeat=len(text) - 1):
        places = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(text)]
        found.append(tuple(text[a:b] for a, b in itertools.pairwise(places)))
    return found


@pytest.mark.parametrize(
    ("text", "stop", "expected", "hit"),
    [
        ("one\n\ntwo", ["\n\n"], "one", "\n\n"),
        ("one\ntwo\n", ["\n\n"], "one\ntwo\n", None),
        ("abcabcd", ["abcd"], "abc", "abcd"),
        ("aaab", ["aab"], "a", "aab"),
        ("xabcdx", ["abcd", "bc"], "xa", "bc"),  # complete first
        ("xabc", ["bc", "abc"], "x", "abc"),  # complete together: the longest
        ("END", ["END"], "", "END"),
        ("EN", ["END"], "EN", None),
        ("ababa", ["bab", "aba"], "", "aba"),
    ],
)
def test_every_way_to_cut_a_text_gives_the_same(
    text: str, stop: list[str], expected: str, hit: str | None
) -> None:
    for pieces in splits(text):
        shown, found = fed(stop, pieces)
        assert ("".join(shown), found) == (expected, hit), pieces
        so_far = ""
        for piece in shown:
            so_far += piece
            assert expected.startswith(so_far), pieces  # nothing of a stop text, ever


def test_no_more_is_held_back_than_needed() -> None:
    assert fed(["\n\n"], ("a", "b\n", "c", "\n"))[0] == ["a", "b", "\nc", "", "\n"]
    assert fed([], ("a", "\n"))[0] == ["a", "\n", ""]
    assert fed(["<end>"], ("a<e", "b", "<en", "d>x", "y"))[0] == ["a", "<eb", "", "", "", ""]


@pytest.fixture(scope="module")
def tokenizer() -> FastVLMTokenizer:
    return FastVLMTokenizer.from_texts(["plain words only"] * 4, vocabulary_size=280)


def text_of(tokenizer: FastVLMTokenizer, **more: object) -> AnswerText:
    return AnswerText(lambda ids: tokenizer.detokenize(ids, skip_special_tokens=True), **more)


def test_a_stop_text_of_several_tokens_and_bytes(tokenizer: FastVLMTokenizer) -> None:
    answer = text_of(tokenizer, stop=["🦉!"])
    ids = tokenizer.tokenize_plain("é🦉?🦉! more")
    pieces = [answer.add(token) for token in ids if answer.stopped is None]
    assert answer.text == "".join(pieces) == "é🦉?" and answer.stopped == "🦉!"
    assert answer.end() == "" and len(answer.token_ids) < len(ids)
    assert not any("\ufffd" in piece for piece in pieces)


def test_what_was_held_back_comes_at_the_end(tokenizer: FastVLMTokenizer) -> None:
    answer = text_of(tokenizer, stop=["word!"])
    for token in tokenizer.tokenize_plain("a word"):
        answer.add(token)
    assert answer.text == "a "
    assert answer.end() == "word" and answer.text == "a word" and answer.stopped is None


def test_stop_texts_are_not_looked_for_before_the_least_length(tokenizer: FastVLMTokenizer) -> None:
    ids = tokenizer.tokenize_plain("a.b.c.d")
    assert len(ids) == 7
    for least, expected in ((0, "a"), (2, "a.b"), (3, "a.b"), (7, "a.b.c.d")):
        answer = text_of(tokenizer, stop=["."], min_new_tokens=least)
        for token in ids:
            if answer.stopped is None:
                answer.add(token)
        answer.end()
        assert answer.text == expected
