"""How accurate and how fast an exported vision-language model is in its runtime."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dl_techniques.compression.optimization.measure import median_milliseconds
from dl_techniques.evaluation import QuestionRecord, QuestionSet
from dl_techniques.evaluation.metrics import exact_match

Ask = Callable[[Path, str, int | None], str]
TIMED = 20


@contextmanager
def asking(path: Path) -> Iterator[Ask]:
    """A function from picture, question and longest answer to the answer, on one thread.

    Args:
        path: the folder that the format "litert" writes, or a `.litertlm` file.
    """
    if path.is_dir():
        from dl_techniques.hosts.litert import Host

        host = Host(path, threads=1)
        yield lambda picture, question, most: "".join(host.stream([picture], question, most))
        return
    from dl_techniques.export.litertlm import EngineChat

    with EngineChat(path, threads=1) as chat:

        def ask(picture: Path, question: str, most: int | None) -> str:
            chat.reset()
            return chat.ask(question, picture, max_new_tokens=most)

        yield ask


def right_answers(ask: Ask, sets: Sequence[QuestionSet]) -> dict[str, int]:
    """How many answers of each set are exactly right."""
    return {
        questions.name: exact_match(
            [ask(record.image, record.question, None) for record in questions.records],
            [record.answer for record in questions.records],
        )
        for questions in sets
    }


def first_token_milliseconds(ask: Ask, records: Sequence[QuestionRecord]) -> float:
    """Median time from a picture's file and a question to the first token of the answer."""
    turns = itertools.cycle(records)

    def call() -> None:
        record = next(turns)
        ask(record.image, record.question, 1)

    return median_milliseconds(call, TIMED)
