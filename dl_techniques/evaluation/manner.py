"""How an answer is put, what it names, and whether that is right.

A model may say what it sees ("dog", "A photo of a dog."), hedge ("It may be a dog or a wolf.") or
say that it does not know ("I am not sure what this is."). Exact match alone would count a hedge and
a wrong name as the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dl_techniques.evaluation.metrics import (
    exact_match,
    majority_answer,
    normalise,
    wilson_interval,
)
from dl_techniques.evaluation.records import QuestionRecord

PLAIN, HEDGED, REFUSED = "plain", "hedged", "refused"
_HEDGES = re.compile(r"\b(may|might|could) (be|show)\b|\b(maybe|perhaps|probably|possibly)\b")
_REFUSALS = re.compile(
    r"\b(not|n't) (sure|certain)\b|\b(do not|don't) know\b|"
    r"\b(can not|cannot|can't) (tell|say|see)\b"
)
_LEADS = re.compile(
    r"(it|this|these|that|there)( is| are|'s)\b|(it|this) (may|might|could) be\b|"
    r"(maybe|perhaps|probably|possibly)\b|(a|the) (photo|photograph|picture|image|drawing) of\b"
)
_ARTICLE = re.compile(r"^(a|an|the|some) ")
_PLACES = re.compile(r" (in it|in the (photo|picture|image))$")


def manner(answer: str) -> str:
    """How an answer is put: "plain", "hedged" or "refused".

    What hedges does name something, so that it is hedged even where it says as well that it is not
    sure. All that is decided about it is decided here.

    Example:
        >>> [manner(text) for text in ("dog", "It may be a dog.", "I am not sure what this is.")]
        ['plain', 'hedged', 'refused']
    """
    text = normalise(answer)
    if _HEDGES.search(text):
        return HEDGED
    return REFUSED if _REFUSALS.search(text) else PLAIN


def names(answer: str) -> tuple[str, ...]:
    """What an answer says that it is: the whole of its first sentence, then the parts of that.

    Args:
        answer: any answer; a refused one names nothing.

    Returns:
        Small letters, without articles and without "a photo of" and the like.

    Example:
        >>> names("It may be a dog or a wolf."), names("A photo of a dog. There is a person in it.")
        (('dog or a wolf', 'dog', 'wolf'), ('dog',))
    """
    if manner(answer) == REFUSED:
        return ()
    return _parts(_sentences(answer)[0])


def things(answer: str) -> list[tuple[str, ...]]:
    """Everything that an answer says to be there: one entry a thing, of which any word may be it.

    Example:
        >>> things("A photo of a dog. There is a person and a car in it.")
        [('dog',), ('person',), ('car',)]
        >>> things("It may be a dog or a wolf. There is a person in it.")
        [('dog or a wolf', 'dog', 'wolf'), ('person',)]
    """
    found: list[tuple[str, ...]] = []
    for sentence in _sentences(answer):
        parts = _parts(sentence)
        put = manner(sentence)
        if put == HEDGED:
            found.append(parts)
        elif put == PLAIN:
            found += [(part,) for part in (parts[1:] or parts)]
    return found


def is_right(answer: str, record: QuestionRecord) -> bool:
    """Whether an answer is right: its first name is accepted, or it refuses where it should.

    Args:
        answer: the answer.
        record: tells whether a refusal is right, or which names are; where it tells neither, the
            answer must match exactly.
    """
    if record.refusal:
        return manner(answer) == REFUSED
    if not record.accepted:
        return exact_match([answer], [record.answer]) == 1
    return any(name in _accepted(record) for name in names(answer)[:2])


def all_right(answers: Sequence[str], records: Sequence[QuestionRecord]) -> list[bool]:
    """Whether each of some answers is right by `is_right`."""
    return [is_right(answer, record) for answer, record in zip(answers, records, strict=True)]


def _accepted(record: QuestionRecord) -> set[str]:
    return {normalise(name) for name in (record.answer, *record.accepted)}


def _sentences(answer: str) -> list[str]:
    return [part for part in re.split(r"[.!?]\s+", normalise(answer)) if part] or [""]


def _parts(sentence: str) -> tuple[str, ...]:
    text = sentence
    while match := _LEADS.match(text):
        text = text[match.end() :].strip(" ,:")
    text = _bare(_PLACES.sub("", text))
    parts = [_bare(part) for part in re.split(r", | and | or ", text)]
    return (text,) if len(parts) == 1 else (text, *parts)


def _bare(text: str) -> str:
    return _ARTICLE.sub("", text.strip())


@dataclass(frozen=True)
class Told:
    """How the answers of a set are put, and how right they are so; None where there are none.

    Attributes:
        accepted: rate of answers that are right by `is_right`, over all questions.
        accepted_interval: its 95 % interval.
        majority: that rate of the most frequent answer of the set.
        question_only: that rate of the recorded answers of a model without pictures.
        shuffled: that rate of the same model with every picture exchanged for another.
        plain: share of answers that are put plainly.
        plain_right: rate of right ones among these, with its interval.
        hedged: share of answers that are hedged.
        hedged_right: rate of those that have a right name among theirs.
        refused: share of answers that name nothing.
        false_yes: rate of "yes" where "no" is right, and the number of such questions.
        things_right: rate of what is named that is there, with its interval and the number named.
    """

    accepted: float
    accepted_interval: tuple[float, float]
    majority: float
    question_only: float | None
    shuffled: float | None
    plain: float
    plain_right: float | None
    plain_right_interval: tuple[float, float] | None
    hedged: float
    hedged_right: float | None
    refused: float
    false_yes: float | None
    asked_no: int
    things_right: float | None
    things_right_interval: tuple[float, float] | None
    things: int

    def as_dict(self) -> dict[str, Any]:
        """The figures, those that there are."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def is_told(records: Sequence[QuestionRecord]) -> bool:
    """Whether `tell` measures anything beyond exact match: names, refusals, things, or yes and no.

    Args:
        records: the questions of a set.
    """
    if any(record.refusal or record.accepted or record.things for record in records):
        return True
    return {normalise(record.answer) for record in records} == {"yes", "no"}


def tell(
    answers: Sequence[str],
    records: Sequence[QuestionRecord],
    exchanged: Sequence[str] | None = None,
) -> Told:
    """Measures the answers of a set.

    Args:
        answers: one a record.
        records: the questions.
        exchanged: the answers of the same model with the pictures exchanged.

    Raises:
        ValueError: their numbers differ, or there is none.
    """
    pairs = list(zip(answers, records, strict=True))
    if not pairs:
        raise ValueError("expected at least one answer, got none")
    right = all_right(answers, records)
    always = [majority_answer([record.answer for record in records])] * len(records)
    guesses = [record.baseline_question_only for record in records]
    put = [manner(answer) for answer in answers]
    plain = [r for r, how in zip(right, put, strict=True) if how == PLAIN]
    hedged = [_any_right(*pair) for pair, how in zip(pairs, put, strict=True) if how == HEDGED]
    wrong_yes = [normalise(a) == "yes" for a, r in pairs if normalise(r.answer) == "no"]
    named = [
        any(word in set(map(normalise, record.things)) for word in thing)
        for answer, record in pairs
        if record.things
        for thing in things(answer)
    ]
    return Told(
        accepted=sum(right) / len(right),
        accepted_interval=wilson_interval(sum(right), len(right)),
        majority=sum(all_right(always, records)) / len(records),
        question_only=_rate_or_none(guesses, records),
        shuffled=_rate_or_none(exchanged or [None], records),
        plain=len(plain) / len(pairs),
        plain_right=_rate(plain),
        plain_right_interval=_interval(plain),
        hedged=len(hedged) / len(pairs),
        hedged_right=_rate(hedged),
        refused=put.count(REFUSED) / len(pairs),
        false_yes=_rate(wrong_yes),
        asked_no=len(wrong_yes),
        things_right=_rate(named),
        things_right_interval=_interval(named),
        things=len(named),
    )


def _rate_or_none(answers: Sequence[str | None], records: Sequence[QuestionRecord]) -> float | None:
    known = [answer for answer in answers if answer is not None]
    return sum(all_right(known, records)) / len(records) if len(known) == len(records) else None


def _any_right(answer: str, record: QuestionRecord) -> bool:
    return not record.refusal and any(name in _accepted(record) for name in names(answer))


def _rate(hits: Sequence[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


def _interval(hits: Sequence[bool]) -> tuple[float, float] | None:
    return wilson_interval(sum(hits), len(hits)) if hits else None
