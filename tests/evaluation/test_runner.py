"""The score of a set and its three baselines, with models whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dl_techniques.evaluation.answerer import Answerer, CertainAnswerer
from dl_techniques.evaluation.records import QuestionRecord, QuestionSet
from dl_techniques.evaluation.runner import evaluate_set, exchange_pictures, question_only_rate

pytestmark = pytest.mark.once

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


@pytest.fixture
def questions(tmp_path: Path) -> QuestionSet:
    """Two questions on each of three plain pictures, then one more on the red one."""
    records = []
    for name, colour in COLOURS.items():
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{name}.png")
        records += [QuestionRecord(tmp_path / f"{name}.png", "Which colour?", name, "red")] * 2
    return QuestionSet("colours", (*records, records[0]))


def sees(questions: list[str], pictures: list[np.ndarray]) -> list[str]:
    """Answers with the colour of the picture's middle."""
    names = {colour: name for name, colour in COLOURS.items()}
    return [f"{names[tuple(int(x) for x in p[4, 4])].title()}." for p in pictures]


def blind(questions: list[str], pictures: list[np.ndarray]) -> list[str]:
    return ["red"] * len(pictures)


def test_a_model_that_sees(questions: QuestionSet) -> None:
    result = evaluate_set(sees, questions, batch_size=3)
    assert (result.n, result.exact_match) == (7, 1.0)
    assert result.majority == result.question_only == pytest.approx(3 / 7)
    assert result.shuffled == 0.0  # every picture was exchanged for another
    assert result.interval[1] == 1.0 and result.interval[0] < 1.0
    assert result.answers == ["Red."] * 2 + ["Green."] * 2 + ["Blue."] * 2 + ["Red."]
    assert "answers" not in result.as_dict()


def test_a_blind_model_equals_its_baselines(questions: QuestionSet) -> None:
    result = evaluate_set(blind, questions, batch_size=32)
    assert result.exact_match == result.majority == result.shuffled == pytest.approx(3 / 7)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batches_cover_every_question_once(questions: QuestionSet, batch_size: int) -> None:
    sizes: list[int] = []
    result = evaluate_set(sees, questions, batch_size, sizes.append)
    assert sum(sizes) == 14 and max(sizes) <= batch_size
    assert result.exact_match == 1.0


def test_exchange_gives_each_question_another_picture() -> None:
    pictures = [Path(name) for name in "aabbbcda"]
    exchanged = exchange_pictures(pictures)
    assert exchanged is not None
    assert all(old != new for old, new in zip(pictures, exchanged, strict=True))
    assert set(exchanged) == set(pictures)
    assert exchanged == exchange_pictures(pictures)


def test_one_picture_cannot_be_exchanged(questions: QuestionSet) -> None:
    assert exchange_pictures([Path("a")] * 3) is None
    single = QuestionSet("one", questions.records[:2])
    assert evaluate_set(sees, single).shuffled is None


def test_question_only_needs_every_record(questions: QuestionSet) -> None:
    first = questions.records[0]
    without = QuestionRecord(first.image, first.question, first.answer)
    assert question_only_rate([first, without]) is None
    assert question_only_rate([first]) == 1.0


class Certain:
    """Sees; sure of what is red."""

    def stream(self, question: str, pictures: Any, max_new_tokens: int | None = None) -> Any:
        yield from self.answer([question], [pictures])

    def answer(self, questions: Any, pictures: Any, max_new_tokens: int | None = None) -> list[str]:
        return sees(list(questions), [few[0] for few in pictures])

    def answer_with_certainty(
        self, questions: Any, pictures: Any, max_new_tokens: int | None = None
    ) -> tuple[list[str], list[float]]:
        answers = self.answer(questions, pictures)
        return answers, [0.9 if answer == "Red." else 0.4 for answer in answers]


def test_certainty_is_kept_beside_what_is_right(questions: QuestionSet) -> None:
    assert isinstance(Certain(), CertainAnswerer) and isinstance(Certain(), Answerer)
    result = evaluate_set(Certain(), questions, batch_size=3)
    assert result.certainty == [0.9] * 2 + [0.4] * 4 + [0.9]
    assert result.right == [True] * 7
    assert result.known == [None] * 7
    assert not {"certainty", "right", "known", "told"} & set(result.as_dict())


def test_sets_with_names_and_refusals_are_told(questions: QuestionSet) -> None:
    records = [replace(record, answer="crimson", accepted=("red",)) for record in questions.records]
    records[2] = replace(records[2], refusal=True)
    result = evaluate_set(blind, QuestionSet("colours", tuple(records)))
    assert result.exact_match == 0.0 and result.told is not None
    assert result.told.accepted == result.told.plain_right == 6 / 7
    assert result.known == [True, True, False, True, True, True, True]
    assert result.certainty == []
    assert result.as_dict()["told"]["plain"] == 1.0
