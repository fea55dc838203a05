"""Data of a training: every fault in one run, folders a class, weights, what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dl_techniques.data.records.training_files import (
    TrainingRecords,
    TrainingSource,
    read_training_files,
    source_of,
)
from dl_techniques.errors import PromptError

pytestmark = pytest.mark.once


def picture(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), "red").save(path)
    return path.name


def written(folder: Path, *records: Any) -> TrainingSource:
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path = folder / "my.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return TrainingSource(str(path))


def faulty(folder: Path) -> TrainingSource:
    (folder / "no.png").write_text("no picture")
    (folder / "empty.png").write_text("")
    good = {"image": picture(folder / "a.png"), "question": "What?", "answer": "A."}
    return written(
        folder,
        good,
        "{no json",
        {**good, "image": "missing.png"},
        {**good, "image": "no.png"},
        {**good, "image": "empty.png"},
        {**good, "answer": " "},
        {"messages": [{"role": "user", "content": "What?"}]},
        good,
    )


def test_every_fault_is_told_with_file_and_row(tmp_path: Path) -> None:
    source = faulty(tmp_path)
    with pytest.raises(PromptError) as told:
        read_training_files([source])
    text = str(told.value)
    assert text.startswith("6 bad record(s): ") and text.endswith("--skip-bad 6")
    wanted = {2: "not valid JSON", 3: "is no file", 4: "no picture that can", 5: "an empty file",
              6: "non-empty text", 7: "no answer to learn"}  # fmt: skip
    for row, what in wanted.items():
        assert f"my.jsonl, line {row}" in text and what in text
    with pytest.raises(PromptError, match="and 4 more; mend them"):
        read_training_files([source], most_told=2)
    with pytest.raises(PromptError, match="more than skip_bad=5"):
        read_training_files([source], skip_bad=5)
    read = read_training_files([source], skip_bad=6)
    assert len(read.records) == 2 and len(read.left_out) == 6


def test_a_folder_a_class(tmp_path: Path) -> None:
    picture(tmp_path / "green_apple" / "1.png")
    picture(tmp_path / "pear" / "2.png")
    (tmp_path / "pear" / "notes.txt").write_text("no picture")
    source = source_of({"path": str(tmp_path), "question": "Which fruit?"})
    records = read_training_files([source]).records
    turns = [[m["content"] for m in record["messages"]] for record in records]
    assert turns == [["Which fruit?", "green apple"], ["Which fruit?", "pear"]]
    assert records[0]["images"] == [str(tmp_path / "green_apple" / "1.png")]


def test_a_folder_of_files_and_several_sources(tmp_path: Path) -> None:
    record = {"question": "What?", "answer": "A."}
    written(tmp_path, record)
    (tmp_path / "more.csv").write_text("question,answer\nWho?,B.\n")
    picture(tmp_path / "elsewhere" / "a.png")
    other = tmp_path / "other"
    other.mkdir()
    told = written(other, {**record, "image": "a.png"}).path
    sources = [
        TrainingSource(str(tmp_path)),
        source_of({"path": told, "weight": 3, "images": str(tmp_path / "elsewhere")}),
    ]
    read = read_training_files(sources)
    assert read.weights == [1.0, 1.0, 3]
    assert sorted(read.rows(1).tolist()) == [0, 1, 2, 2, 2]
    assert len(read.rows(4)) == 8


def test_weights_hold_on_average() -> None:
    rows = TrainingRecords([{}] * 2000, [0.25] * 1000 + [1.5] * 1000).rows(1)
    assert 200 < (rows < 1000).sum() < 300 and 1450 < (rows >= 1000).sum() < 1550


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"path": "a", "wieght": 2}, "a mapping with path, weight"),
        (3, "got 3"),
        ({"path": "a", "weight": 0}, "expected above 0"),
    ],
)
def test_wrong_sources(value: Any, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        source_of(value)


def test_sources_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="a folder of pictures for each class"):
        read_training_files([TrainingSource(str(tmp_path))])
    picture(tmp_path / "a.png")
    with pytest.raises(PromptError, match="is a picture"):
        read_training_files([TrainingSource(str(tmp_path / "a.png"))])
    with pytest.raises(PromptError, match="cannot be read"):
        read_training_files([TrainingSource(str(tmp_path / "none.jsonl"))])
