"""Conversations about drawings, asked in the words that photographs are asked in.

Whoever asks does not know what a model was trained on: "what is this?" is said of a photograph, a
drawing, a scene and a printed word alike, and each has an answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recipes.demo.draw.language import pick
from recipes.demo.draw.naming import KIND_QUESTIONS, NAME_QUESTIONS, TAG_QUESTIONS
from recipes.demo.draw.scene_questions import CAPTION_QUESTIONS, LIST_QUESTIONS
from recipes.demo.draw.words import READ_QUESTIONS
from recipes.demo.photos import wordings
from recipes.demo.photos.names import all_names
from recipes.demo.photos.templates import is_there

Message = dict[str, str]
OTHER_WORDS = 0.35
"""Share of the questions after a name, a list or a caption that are put in other words."""
WORD_NAMED = 0.2
"""Share of the questions that ask to read a word that ask what it is."""
DENIED = 0.12
"""Share of the conversations that end with a question after what is not there."""
EMOJI = {wordings.bare(q) for q in (*NAME_QUESTIONS, *KIND_QUESTIONS, *TAG_QUESTIONS)}
NAMED, LISTED, TOLD, READ = (
    {wordings.bare(question) for question in questions}
    for questions in (NAME_QUESTIONS, LIST_QUESTIONS, CAPTION_QUESTIONS, READ_QUESTIONS)
)


def asked_as_photographs(rng: np.random.Generator, messages: Sequence[Message]) -> list[Message]:
    """A conversation about a drawing with some of its questions in other words.

    Args:
        rng: draws.
        messages: of the user and the assistant in turn; stay as they are.

    Example:
        >>> said = [{"role": "user", "content": "Read the word."},
        ...         {"role": "assistant", "content": "TREE"}]
        >>> answers = {asked_as_photographs(np.random.default_rng(i), said)[1]["content"]
        ...            for i in range(20)}
        >>> sorted(answers)
        ['TREE', 'no', 'the word TREE']
    """
    both = zip(messages[::2], messages[1::2], strict=True)
    pairs = [(q["content"], a["content"]) for q, a in both]
    asked = [wordings.bare(question) for question, _ in pairs]
    pairs = [_other_words(rng, question, answer) for question, answer in pairs]
    if rng.random() < DENIED and _is_without_people(asked, pairs):
        name = pick(rng, all_names())
        has_letters = any(question in READ for question in asked)
        question = is_there(rng, name) if has_letters and rng.random() < 0.5 else None
        question = question or pick(rng, wordings.PERSON)
        pairs[-1] = (wordings.spoken(rng, question), "no")
    roles = ("user", "assistant")
    return [{"role": r, "content": c} for pair in pairs for r, c in zip(roles, pair, strict=True)]


def _other_words(rng: np.random.Generator, question: str, answer: str) -> tuple[str, str]:
    kind, chance = wordings.bare(question), rng.random()
    if kind in READ and chance < WORD_NAMED:
        return wordings.spoken(rng, wordings.of_name(rng)), f"the word {answer}"
    if kind in NAMED | LISTED and chance < OTHER_WORDS:
        return wordings.spoken(rng, wordings.of_name(rng)), answer
    if kind in TOLD and chance < OTHER_WORDS:
        return wordings.spoken(rng, pick(rng, wordings.DESCRIBE)), answer
    return question, answer


def _is_without_people(asked: Sequence[str], pairs: Sequence[tuple[str, str]]) -> bool:
    """Whether it is no single drawing, which may be one of a person."""
    named = any(q in EMOJI or q.startswith(("is this", "is it")) for q in asked)
    return not named and not any(answer.startswith("A drawing of") for _, answer in pairs)
