"""What is said of a photograph follows from what is known of it, and is English."""

from __future__ import annotations

import re

import numpy as np
import pytest

from recipes.demo.photos.articles import PLURAL, one
from recipes.demo.photos.names import all_names
from recipes.demo.photos.templates import (
    ABSENT,
    NOT_SURE,
    NOTHING,
    Facts,
    caption_answer,
    contents_answer,
    guess_answer,
    kin,
    manner_of,
    name_answer,
    sure_answer,
    turns,
)
from recipes.demo.photos.wordings import HELD_OUT, bare

pytestmark = pytest.mark.once
DOG = Facts((("dog", 0.9), ("wolf", 0.06), ("fox", 0.01)), person=True)
EITHER = Facts((("dog", 0.5), ("wolf", 0.3), ("fox", 0.1), ("cat", 0.01)), person=False)
UNKNOWN = Facts((("dog", 0.3), ("wolf", 0.2), ("fox", 0.1)), person=True)


def drawn_facts(rng: np.random.Generator) -> Facts:
    """Facts of any kind."""
    names = [all_names()[int(i)] for i in rng.permutation(len(all_names()))[:12]]
    shares = rng.dirichlet(np.full(12, rng.choice([0.05, 0.3, 1.0])))
    order = np.sort(shares)[::-1]
    return Facts(
        tuple((name, float(p)) for name, p in zip(names, order, strict=True)),
        known=float(rng.choice([0.1, 0.9])),
        person=(None, True, False)[int(rng.integers(3))],
        kind=("caltech", "clothing", NOTHING)[int(rng.integers(3))],
        sure=tuple(names[10 : 10 + int(rng.integers(3))]),
    )


def test_plain() -> None:
    assert manner_of(DOG) == "plain"
    assert name_answer(DOG) == "dog"
    assert contents_answer(DOG) == "a dog and a person"
    assert caption_answer(DOG) == "A photo of a dog. There is a person in it."
    assert guess_answer(DOG) == "a dog"
    assert sure_answer(DOG) == "very sure"


def test_hedged() -> None:
    assert manner_of(EITHER) == "hedged"
    assert name_answer(EITHER) == contents_answer(EITHER) == "It may be a dog or a wolf."
    assert caption_answer(EITHER) == "It may be a photo of a dog or a wolf."
    assert sure_answer(EITHER) == "not very sure"
    alone = Facts((("scissors", 0.5), ("knife", 0.01)))
    assert name_answer(alone) == "It may be scissors."


def test_refused() -> None:
    told = "I am not sure what this is. There is a person in it."
    assert name_answer(UNKNOWN) == contents_answer(UNKNOWN) == caption_answer(UNKNOWN) == told
    assert guess_answer(UNKNOWN) == "It may be a dog, a wolf or a fox."
    assert sure_answer(UNKNOWN) == "not sure"


def test_what_has_no_name_is_refused_whatever_the_classifier_says() -> None:
    facts = Facts((("dog", 0.95), ("wolf", 0.05)), known=0.2, person=False)
    for answer in (name_answer, contents_answer, caption_answer, guess_answer):
        assert answer(facts) == NOT_SURE


def test_further_things_are_told_once_and_only_beside_what_they_are_not() -> None:
    facts = Facts((("bicycle", 0.8),), person=True, sure=("person", "dog", "wheel"))
    told = "A photo of a bicycle. There is a person and a dog in it."
    assert caption_answer(facts) == told
    face = Facts((("face", 0.9),), person=True, sure=("person",))
    assert caption_answer(face) == "A photo of a face."


def test_no_training_turn_has_a_held_out_wording() -> None:
    rng = np.random.default_rng(1)
    held = {bare(wording) for wording in HELD_OUT}
    asked = {bare(q) for _ in range(3000) for _, q, _ in turns(rng, drawn_facts(rng))}
    assert len(asked) > 500
    assert not held & asked


def test_yes_and_no_follow_from_the_probabilities() -> None:
    rng = np.random.default_rng(2)
    seen = set()
    for _ in range(3000):
        facts = drawn_facts(rng)
        listed = dict(facts.names)
        for kind, question, answer in turns(rng, facts):
            if kind == "person":
                assert answer == ("yes" if facts.person else "no")
            if kind != "is_there":
                continue
            about = max(
                (n for n in (*all_names(), "person") if f" {one(n)}" in f" {bare_end(question)}"),
                key=len,
            )
            seen.add(answer)
            if answer == "no":
                assert listed.get(about, 0) < ABSENT
                assert about not in facts.sure and about != "person"
            elif answer == "yes" and about != "person" and about not in facts.sure:
                assert about == facts.names[0][0] and manner_of(facts) == "plain"
    assert seen == {"yes", "no", "maybe"}


def bare_end(question: str) -> str:
    """The question in small letters, without its mark."""
    return question.lower().rstrip("?")


def test_what_is_kin_is_never_denied() -> None:
    rng = np.random.default_rng(3)
    facts = Facts((("laptop", 0.999),), person=True)
    denied = " ".join(q for _ in range(2000) for k, q, a in turns(rng, facts) if a == "no")
    assert "zebra" in denied
    assert not re.search(r"\b(computer|keyboard|laptop|t-shirt|person)\b", denied.lower())
    assert {"truck", "wheel", "fire truck"} <= kin("fire truck")


def test_noise_denies_everything() -> None:
    rng = np.random.default_rng(4)
    made = [turn for _ in range(50) for turn in turns(rng, Facts((), 0.0, False, NOTHING))]
    assert {answer for kind, _, answer in made if kind == "is_there"} == {"no"}
    assert {answer for kind, _, answer in made if kind == "name"} == {NOT_SURE}


def test_count_and_the_name_is_always_asked() -> None:
    rng = np.random.default_rng(5)
    assert [kind for kind, _, _ in turns(rng, DOG, 1)] == ["name"]
    assert len(turns(rng, DOG, 3)) == 3
    assert "name" in {kind for kind, _, _ in turns(rng, DOG, 3)}


def test_sentences_are_english() -> None:
    rng = np.random.default_rng(6)
    for _ in range(3000):
        for kind, question, answer in turns(rng, drawn_facts(rng)):
            for text in (question, answer):
                assert "  " not in text and "{" not in text
                assert not re.search(r"\ba (?!euph)[aeio]|\ban [^aeiouhm]", text.lower()), text
                assert not re.search(rf"\ba ({'|'.join(PLURAL)})\b(?! )", text.lower()), text
            if kind == "caption":
                assert answer[0].isupper() and answer.endswith(".")
