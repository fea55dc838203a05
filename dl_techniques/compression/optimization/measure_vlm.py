"""How accurate and how fast an exported vision-language model is in its runtime."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from dl_techniques.compression.optimization.measure import median_milliseconds
from dl_techniques.evaluation import QuestionRecord, QuestionSet
from dl_techniques.evaluation.answerer import Answerer
from dl_techniques.evaluation.metrics import exact_match

TIMED = 20


def right_answers(answerer: Answerer, sets: Sequence[QuestionSet]) -> dict[str, int]:
    """How many answers of each set are exactly right."""
    return {
        questions.name: exact_match(
            answerer.answer(
                [record.question for record in questions.records],
                [[record.image] for record in questions.records],
            ),
            [record.answer for record in questions.records],
        )
        for questions in sets
    }


def first_token_milliseconds(answerer: Answerer, records: Sequence[QuestionRecord]) -> float:
    """Median time from a picture's file and a question to the first token of the answer."""
    turns = itertools.cycle(records)

    def call() -> None:
        record = next(turns)
        answerer.answer([record.question], [[record.image]], 1)

    return median_milliseconds(call, TIMED)
