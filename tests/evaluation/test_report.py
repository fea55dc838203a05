"""The table and the JSON of an evaluation."""

from __future__ import annotations

import dataclasses
import datetime
import json
from pathlib import Path

import keras
import pytest

from dl_techniques.evaluation.manner import tell
from dl_techniques.evaluation.records import QuestionRecord
from dl_techniques.evaluation.report import as_report, certainty_figures, to_json, to_table
from dl_techniques.evaluation.runner import SetResult

RESULT = SetResult("easy", 200, 0.953, (0.91, 0.976), 0.37, None, 0.402, 12.34, ["yes"], 0.021)


def test_json_holds_figures_and_where_they_come_from() -> None:
    report = json.loads(to_json(as_report("demo", [RESULT], 20.126)))
    assert report["preset"] == "demo"
    assert report["seconds"] == 20.13
    assert report["machine"]["backend"] == keras.backend.backend()
    assert report["machine"]["cores"] >= 1
    assert datetime.datetime.fromisoformat(report["date"]).tzinfo is not None
    (figures,) = report["sets"]
    assert figures["exact_match"] == 0.953
    assert figures["interval"] == [0.91, 0.976]
    assert figures["question_only"] is None
    assert figures["calibration_error"] == 0.021
    assert "answers" not in figures and "certainties" not in figures


def test_table_shows_every_column() -> None:
    table = to_table(as_report("demo", [RESULT], 20.0), [RESULT]).splitlines()
    cells = [cell.strip() for cell in table[2].strip("|").split("|")]
    assert cells == ["easy", "200", "95.3", "91.0-97.6", "37.0", "-", "40.2", "2.1", "12.3"]
    assert len({len(line) for line in table[:3]}) == 1
    assert "preset demo" in table[-1]


NOT_SURE = "I am not sure what this is."


def told_result(name: str, answers: list[str], certainty: list[float], known: bool) -> SetResult:
    """A result of questions after a wolf, or of such that are to be refused."""
    record = QuestionRecord(Path("a.png"), "?", "wolf", None, ("timber wolf",), not known)
    return dataclasses.replace(
        RESULT,
        name=name,
        answers=answers,
        told=tell(answers, [record] * len(answers)),
        right=[answer == ("wolf" if known else NOT_SURE) for answer in answers],
        certainties=certainty,
        known=[known] * len(answers),
    )


TOLD = [
    told_result("wolves", ["wolf", "dog", NOT_SURE], [0.9, 0.8, 0.3], True),
    told_result("nothing", [NOT_SURE, "dog"], [0.2, 0.8], False),
]


def test_how_answers_are_put_is_a_second_table() -> None:
    lines = to_table(as_report("demo", TOLD, 20.0), TOLD).splitlines()
    second = lines.index("") + 1
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines[second : second + 4]]
    assert cells[0][:4] == ["set", "right", "95 %", "majority"]
    assert cells[2] == [
        "wolves",
        "33.3",
        "6.1-79.2",
        "100.0",
        "-",
        "-",
        "66.7",
        "50.0",
        "0.0",
        "-",
        "33.3",
        "-",
        "-",
    ]
    assert cells[3][:2] == ["nothing", "50.0"]
    assert not to_table(as_report("demo", [RESULT], 20.0), [RESULT]).count("not sure")


def test_certainty_is_over_all_sets() -> None:
    figures = certainty_figures(TOLD)
    assert (figures["n"], figures["known"], figures["unknown"]) == (3, 3, 2)
    assert figures["known_from_unknown"] == pytest.approx(4.5 / 6)  # of 0.9, 0.8, 0.3 over 0.2, 0.8
    assert figures["known_from_unknown_by_set"] == {"nothing": 0.75}
    # 0.9 of one right; 0.8 twice, none right: in groups of a tenth
    assert figures["calibration_error"] == pytest.approx((0.1 + 1.6) / 3)
    assert "certainty" in as_report("demo", TOLD, 1.0)
    assert "AUROC 0.750" in to_table(as_report("demo", TOLD, 1.0), TOLD)


def test_without_certainty_there_are_no_such_figures() -> None:
    assert certainty_figures([RESULT]) == {}
    assert "certainty" not in as_report("demo", [RESULT], 1.0)
    alone = certainty_figures(TOLD[:1])
    assert alone["known_from_unknown"] is None and "AUROC -" in to_table(
        as_report("demo", TOLD[:1], 1.0), []
    )
