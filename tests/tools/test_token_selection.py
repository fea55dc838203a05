"""The table of what fewer rows of a picture cost and gain."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import token_selection

pytestmark = pytest.mark.once


@pytest.mark.slow_on_jax
def test_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "colours"
    folder.mkdir()
    Image.fromarray(np.full((8, 8, 3), 200, "uint8")).save(folder / "a.png")
    record = {"image": "a.png", "question": "what is this?", "answer": "no such answer"}
    (folder / "records.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    options = ["--data", str(tmp_path), "--repeats", "1"]
    shape = {"tower": "demo", "image_size": 64, "vocabulary_size": 64, "num_layers": 1}
    token_selection.main(options, **shape)
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:7]]
    assert [row[0] for row in cells] == ["16", "9", "4", "3", "1"]
    assert [row[1] for row in cells] == ["23", "16", "11", "10", "8"]
    assert {row[2] for row in cells} == {"0.0"} and float(cells[0][5]) == 1
    assert all(float(row[4]) > 0 for row in cells)


def test_pick_is_even() -> None:
    records = tuple(range(10))
    questions = token_selection.QuestionSet("s", records)  # type: ignore[arg-type]
    assert token_selection.pick(questions, 4).records == (0, 3, 6, 9)
    assert token_selection.pick(questions, None).records == records
