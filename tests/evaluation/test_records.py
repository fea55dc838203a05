"""Sets of questions on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dl_techniques.errors import DLTechniquesError
from dl_techniques.evaluation.records import find_sets, load_set

pytestmark = pytest.mark.once


def write_set(folder: Path, lines: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.png").write_bytes(b"a picture, as far as the records know")
    (folder / "records.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def line(**changes: object) -> str:
    return json.dumps({"image": "a.png", "question": "What?", "answer": "a cat"} | changes)


def test_reads_records_in_order(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "names", [line(), "", line(answer="ein Hund ß")])
    questions = load_set(folder)
    assert questions.name == "names"
    assert [r.answer for r in questions.records] == ["a cat", "ein Hund ß"]
    assert questions.records[0].image == folder / "a.png"
    assert questions.records[0].baseline_question_only is None


def test_limit_takes_the_first(tmp_path: Path) -> None:
    folder = write_set(tmp_path, [line(answer=str(i)) for i in range(5)])
    assert [r.answer for r in load_set(folder, limit=2).records] == ["0", "1"]


def test_baseline_is_read(tmp_path: Path) -> None:
    folder = write_set(tmp_path, [line(baseline_question_only="a dog")])
    assert load_set(folder).records[0].baseline_question_only == "a dog"


def test_further_answers_refusals_and_things_are_read(tmp_path: Path) -> None:
    told = line(accepted=["a kitty"], refusal=True, things=["cat", "sofa"])
    records = load_set(write_set(tmp_path, [told, line(accepted=None, refusal=None)])).records
    first, second = ((r.accepted, r.refusal, r.things) for r in records)
    assert first == (("a kitty",), True, ("cat", "sofa"))
    assert second == ((), False, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "expected an object, got list"),
        (line(image="b.png"), "b.png does not exist"),
        (line(question=" "), "'question'"),
        (line(answer=3), "'answer', got 3"),
        (line(answer=None), "'answer', got None"),
        (line(question="What \ud800?"), "line 1: 'question' holds half a character"),
        (line(baseline_question_only=1), "'baseline_question_only'"),
        (line(accepted="a kitty"), "a list of texts in 'accepted', got 'a kitty'"),
        (line(accepted=["a kitty", 3]), "a text in 'accepted', got 3"),
        (line(things=[" "]), "a text in 'things'"),
        (line(refusal="no"), "true or false in 'refusal', got 'no'"),
        ("", "holds no question"),
    ],
)
def test_bad_records_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DLTechniquesError, match=message):
        load_set(write_set(tmp_path, [text]))


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    folder = write_set(tmp_path, ["\ufeff" + line()])
    assert load_set(folder).records[0].answer == "a cat"


def test_records_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DLTechniquesError, match="cannot read"):
        load_set(tmp_path)


def test_find_sets(tmp_path: Path) -> None:
    two = write_set(tmp_path / "two", [line()])
    one = write_set(tmp_path / "one", [line()])
    (tmp_path / "three").mkdir()
    assert find_sets(tmp_path) == [one, two]
    assert find_sets(one) == [one]
    for empty in (tmp_path / "three", tmp_path / "missing", one / "a.png"):
        with pytest.raises(DLTechniquesError, match=r"no records\.jsonl"):
            find_sets(empty)
