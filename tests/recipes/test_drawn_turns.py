"""Questions about drawings in the words that photographs are asked in."""

from __future__ import annotations

import numpy as np
import pytest

from recipes.demo.photos import wordings
from recipes.demo.stages.drawn_turns import asked_as_photographs

pytestmark = pytest.mark.once


def told(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": r, "content": c} for pair in pairs for r, c in zip(roles, pair, strict=True)]


def all_ways(messages: list[dict[str, str]], count: int = 300) -> list[list[dict[str, str]]]:
    return [asked_as_photographs(np.random.default_rng(i), messages) for i in range(count)]


def test_answers_stay_but_that_of_a_word() -> None:
    scene = told(("What is in the picture?", "a cat and a key"), ("Is there a key?", "yes"))
    before = [dict(message) for message in scene]
    for said in all_ways(scene):
        assert [m["role"] for m in said] == ["user", "assistant"] * 2
        assert said[1]["content"] == "a cat and a key"
        denied = said[3]["content"] == "no"
        assert denied == (wordings.bare(said[2]["content"]) != "is there a key")
    assert scene == before
    questions = {said[0]["content"] for said in all_ways(scene)}
    assert len(questions) > 30 and "What is in the picture?" in questions


def test_a_word_is_read_or_named() -> None:
    answers = {said[1]["content"] for said in all_ways(told(("read the word.", "TREE")))}
    assert answers == {"TREE", "the word TREE", "no"}


def test_nobody_is_denied_on_a_drawing_that_may_be_of_one() -> None:
    for said in all_ways(
        told(("What is this?", "astronaut"), ("describe the image.", "A drawing"))
    ):
        assert said[1]["content"] == "astronaut" and said[3]["content"] == "A drawing"


def test_wordings_are_many_and_none_is_held_back() -> None:
    rng = np.random.default_rng(0)
    held = {wordings.bare(question) for question in wordings.HELD_OUT}
    for clothes in (False, True):
        made = {wordings.bare(wordings.of_name(rng, clothes)) for _ in range(3000)}
        assert len(made) > 300 and not made & held
