"""The table and the JSON of an evaluation."""

from __future__ import annotations

import datetime
import json

import keras

from dl_techniques.evaluation.report import as_report, to_json, to_table
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
