"""How probable it is that an answer about a photograph is right, by the tags of its names."""

from __future__ import annotations

import re

import numpy as np

from dl_techniques.layers.name_tags import NameTags

PHOTOGRAPH, PERSON = "photograph", "person"
PEOPLE = re.compile(r"\b(person|people|anyone|anybody|someone|somebody|human)\b")
UNSURE = re.compile(r"\bnot (very )?sure\b")
WORD = re.compile(r"[a-z0-9'-]+")


def certainty_of_tags(
    tags: NameTags,
    names: np.ndarray,
    known: float,
    facts: np.ndarray,
    question: str,
    answer: str,
) -> float | None:
    """The certainty of an answer; None where tags say nothing about it.

    Args:
        tags: the layer.
        names: float[N], of `Tags`.
        known: of `Tags`.
        facts: float[F], of `Tags`.
        question: what was asked.
        answer: what was said.
    """
    told = dict(zip(tags.facts, (float(fact) for fact in facts), strict=True))
    if told.get(PHOTOGRAPH, 1.0) < 0.5:
        return None
    said, asked = answer.lower().strip(" ."), question.lower()
    if said in ("yes", "no"):
        return _yes_or_no(tags, names * known, told, asked, said == "yes")
    if UNSURE.search(said):
        return float(names.max() * known)
    chances = [float(names[i] * known) for i in mentioned(tags.names, said)]
    return min(1.0, sum(chances)) if chances else None


def _yes_or_no(
    tags: NameTags, chances: np.ndarray, facts: dict[str, float], asked: str, yes: bool
) -> float | None:
    if PEOPLE.search(asked) and PERSON in facts:
        there = facts[PERSON]
    else:
        places = mentioned(tags.names, asked)
        if not places:
            return None
        there = min(1.0, float(chances[places].sum()))
    return there if yes else 1.0 - there


def mentioned(names: tuple[str, ...], text: str) -> list[int]:
    """Places of the names that a text says, a longer one before what is part of it.

    Example:
        >>> mentioned(("cat", "dog", "hot dog"), "a photo of a hot dog and a cat")
        [2, 0]
    """
    words = f" {' '.join(WORD.findall(text))} "
    found = []
    for place in sorted(range(len(names)), key=lambda i: -len(names[i])):
        name = f" {' '.join(WORD.findall(names[place].lower()))} "
        if name in words:
            found.append(place)
            words = words.replace(name, " . ")
    return found
