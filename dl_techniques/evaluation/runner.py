"""Runs a model over a set of questions and scores it beside three baselines.

The baselines tell what a figure is worth: the majority answer (knows nothing), the question
alone (sees no picture), and the same model with the pictures exchanged (sees a wrong one).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dl_techniques.data.images import load_image
from dl_techniques.evaluation.answerer import Answerer as Answerer
from dl_techniques.evaluation.answerer import CertainAnswerer
from dl_techniques.evaluation.calibration import calibration_error, ranking_rate
from dl_techniques.evaluation.manner import REFUSED, Told, all_right, is_told, manner, tell
from dl_techniques.evaluation.metrics import exact_match, majority_answer, wilson_interval
from dl_techniques.evaluation.records import QuestionRecord, QuestionSet

SHUFFLE_SEED = 20240607
SINGLE = ("answers", "certainties", "right", "known")
"""What `SetResult` has one of for each question; reports leave it out."""

AnswerFunction = Callable[[list[str], list[np.ndarray]], list[str]]
"""Questions and the picture of each -> answers: what stands for an `Answerer` of one picture."""


@dataclass
class SetResult:
    """The figures of one set; rates are fractions in [0, 1], None where there is no figure.

    Attributes:
        name: name of the set.
        n: number of questions.
        exact_match: rate of right answers.
        interval: its 95 % interval.
        majority: rate of the most frequent answer of this set.
        question_only: rate of the recorded answers of a model without pictures.
        shuffled: rate of the same model with every picture exchanged for another.
        seconds: time that the model's own answers took.
        calibration_error: ECE of the certainties of answers that name something, where the
            answerer has some.
        ranking: AUROC of the certainties, of right answers against wrong ones.
        answers: the model's answers, in the order of the records.
        certainties: how probable the model takes it that they are right.
        told: how the answers are put and how right they are so; None for sets of exact answers.
        right: whether each is right, by `manner.is_right`.
        known: of sets with names or refusals, whether each picture shows something with a name.
    """

    name: str
    n: int
    exact_match: float
    interval: tuple[float, float]
    majority: float
    question_only: float | None
    shuffled: float | None
    seconds: float
    answers: list[str] = field(default_factory=list, repr=False)
    calibration_error: float | None = None
    ranking: float | None = None
    certainties: list[float] = field(default_factory=list, repr=False)
    told: Told | None = None
    right: list[bool] = field(default_factory=list, repr=False)
    known: list[bool | None] = field(default_factory=list, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The figures, without the single answers."""
        figures = {key: value for key, value in vars(self).items() if key not in SINGLE}
        if self.told is None:
            del figures["told"]
        else:
            figures["told"] = self.told.as_dict()
        return figures

    def claims(self) -> tuple[list[float], list[bool]]:
        """The certainties of the answers that name something, and whether these are right."""
        if not self.certainties:
            return [], []
        rows = zip(self.answers, self.certainties, self.right, strict=True)
        kept = [(sure, right) for answer, sure, right in rows if manner(answer) != REFUSED]
        return [sure for sure, _ in kept], [right for _, right in kept]


def exchange_pictures(pictures: Sequence[Path], seed: int = SHUFFLE_SEED) -> list[Path] | None:
    """Gives every question another question's picture, never its own.

    The distinct pictures are put in a random circle and each is replaced by the next, so that
    the pictures stay as frequent as they were up to the number of questions on each.

    Returns:
        One picture per question, or None where all questions share a single picture.
    """
    distinct = sorted(set(pictures))
    if len(distinct) < 2:
        return None
    order = np.random.default_rng(seed).permutation(len(distinct))
    circle = [distinct[i] for i in order]
    following = dict(zip(circle, circle[1:] + circle[:1], strict=True))
    return [following[picture] for picture in pictures]


def answer_questions(
    answerer: Answerer | AnswerFunction,
    records: Sequence[QuestionRecord],
    pictures: Sequence[Path],
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
    max_new_tokens: int | None = None,
    certain: bool = False,
) -> list[tuple[str, float | None]]:
    """Answers every question on the picture beside it.

    Args:
        answerer: an `Answerer`, or a function from questions and their pictures (uint8[H, W, 3]).
        records: the questions.
        pictures: one path per question.
        batch_size: questions per call.
        on_batch: called after each batch with its size.
        max_new_tokens: longest answer of an `Answerer`; None for what the model says.
        certain: ask how certain the answers are, where the answerer can tell.

    Returns:
        The answers, each with its certainty; with None where there is none.
    """
    pairs: list[tuple[str, float | None]] = []
    for start in range(0, len(records), batch_size):
        chunk = records[start : start + batch_size]
        images = [load_image(path) for path in pictures[start : start + batch_size]]
        asked = [record.question for record in chunk]
        several = [[image] for image in images]
        if callable(answerer):
            pairs += [(answer, None) for answer in answerer(asked, images)]
        elif certain and isinstance(answerer, CertainAnswerer):
            pairs += answerer.answer_with_certainty(asked, several, max_new_tokens)
        else:
            pairs += [(answer, None) for answer in answerer.answer(asked, several, max_new_tokens)]
        if on_batch is not None:
            on_batch(len(chunk))
    return pairs


def evaluate_set(
    answerer: Answerer | AnswerFunction,
    questions: QuestionSet,
    batch_size: int = 32,
    on_batch: Callable[[int], None] | None = None,
    max_new_tokens: int | None = None,
) -> SetResult:
    """Scores a model on one set, with its baselines.

    Args:
        answerer: an `Answerer`, or a function from questions and their pictures to answers.
        questions: the set.
        batch_size: questions per call.
        on_batch: called after each batch with its size; the set is gone through twice.
        max_new_tokens: longest answer of an `Answerer`; None for what the model says.

    Returns:
        The figures.
    """
    records = questions.records
    targets = [record.answer for record in records]
    pictures = [record.image for record in records]
    start = time.perf_counter()
    ask = partial(
        answer_questions, answerer, records, batch_size=batch_size, on_batch=on_batch,
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
    pairs = ask(pictures, certain=True)
    seconds = time.perf_counter() - start
    answers = [answer for answer, _ in pairs]
    certainties = [certainty for _, certainty in pairs if certainty is not None]
    hits = exact_match(answers, targets)
    exchanged = exchange_pictures(pictures)
    shuffled, blind = None, None
    if exchanged is not None:
        blind = [answer for answer, _ in ask(exchanged)]
        shuffled = exact_match(blind, targets) / len(records)
    result = SetResult(
        name=questions.name,
        n=len(records),
        exact_match=hits / len(records),
        interval=wilson_interval(hits, len(records)),
        majority=exact_match([majority_answer(targets)] * len(records), targets) / len(records),
        question_only=question_only_rate(records),
        shuffled=shuffled,
        seconds=seconds,
        answers=answers,
        certainties=certainties,
        told=tell(answers, records, blind) if is_told(records) else None,
        right=all_right(answers, records),
        known=[_is_known(record) for record in records],
    )
    sure, right = result.claims()
    if sure:
        result.calibration_error = calibration_error(sure, right)
        result.ranking = ranking_rate(sure, right)
    return result


def _is_known(record: QuestionRecord) -> bool | None:
    return False if record.refusal else True if record.accepted else None


def question_only_rate(records: Sequence[QuestionRecord]) -> float | None:
    """Rate of the recorded answers given without the picture; None unless every record has one."""
    guesses = [record.baseline_question_only for record in records]
    known = [guess for guess in guesses if guess is not None]
    if len(known) < len(records):
        return None
    return exact_match(known, [record.answer for record in records]) / len(records)
