"""The score of a set and its three baselines, with models whose answers are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def test_certainties_are_measured_where_there_are_some(questions: QuestionSet) -> None:
    """An answerer that is right about red, and sure of it."""

    class Certain:
        def stream(self, question: str, pictures: list, max_new_tokens: int | None = None) -> None:
            raise AssertionError("a set is answered in batches")

        def answer(self, questions: list, pictures: list, longest: int | None = None) -> list[str]:
            return ["red"] * len(questions)

        def answer_with_certainty(
            self, questions: list, pictures: list, longest: int | None = None
        ) -> list[tuple[str, float]]:
            return [("red", 0.8 if image[0, 0, 0] == 255 else 0.1) for (image,) in pictures]

    result = evaluate_set(Certain(), questions, batch_size=3)
    assert result.certainties == [0.8] * 2 + [0.1] * 4 + [0.8]
    assert result.calibration_error == pytest.approx(3 / 7 * 0.2 + 4 / 7 * 0.1)
    assert result.ranking == 1.0
    plain = evaluate_set(blind, questions)
    assert plain.calibration_error is None and plain.certainties == []
    assert not {"certainties", "right", "known", "told"} & set(result.as_dict())


def test_refusals_claim_nothing_to_be_certain_of(questions: QuestionSet) -> None:
    result = replace(
        evaluate_set(blind, questions),
        answers=["red", "red", "I am not sure what this is."],
        certainties=[0.9, 0.4, 0.1],
        right=[True, False, True],
    )
    assert result.claims() == ([0.9, 0.4], [True, False])


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


def test_sets_with_names_and_refusals_are_told(questions: QuestionSet) -> None:
    records = [replace(record, answer="crimson", accepted=("red",)) for record in questions.records]
    records[2] = replace(records[2], refusal=True)
    result = evaluate_set(blind, QuestionSet("colours", tuple(records)))
    assert result.exact_match == 0.0 and result.told is not None
    assert result.told.accepted == result.told.plain_right == 6 / 7
    assert result.known == [True, True, False, True, True, True, True]
    assert result.certainties == []
    assert result.as_dict()["told"]["plain"] == 1.0
