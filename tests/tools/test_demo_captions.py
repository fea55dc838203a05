"""Captions of single pictures: short records ask for them, and the evaluation sets measure them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from dl_techniques.cli.commands.describe import QUESTION
from recipes.demo import benchmark
from recipes.demo.draw.records import DemoData

pytestmark = pytest.mark.once


def asked(others: float, count: int = 300) -> Counter[str]:
    """How often each type of turn comes first in short records of words."""
    data = DemoData(None, mix={"words": 1.0}, short=True, others=others)
    records = [data.typed_record("words", "train", index, 5)[1] for index in range(count)]
    assert all(len(turns) == 1 for turns in records)
    return Counter(turns[0][0] for turns in records)


def test_short_records_ask_for_the_name_and_some_for_something_else() -> None:
    assert asked(0.0) == {"read": 300}
    kinds = asked(0.4)
    assert set(kinds) == {"read", "caption", "letters", "letter", "spell"}
    assert 0.5 < kinds["read"] / 300 < 0.7
    others = 300 - kinds["read"]
    assert 0.5 < kinds["caption"] / others < 0.75  # half of them, and a quarter of the rest


def test_kinds_without_a_name_are_asked_as_before() -> None:
    plain, told = (
        DemoData(None, mix={"scenes": 1.0}, short=True, others=others) for others in (0.0, 0.5)
    )
    for index in range(8):
        ours, theirs = (data.typed_record("scenes", "train", index, 3)[1] for data in (plain, told))
        assert ours == theirs


def test_a_copy_in_another_process_asks_the_same() -> None:
    data = DemoData(None, mix={"words": 1.0}, short=True, others=0.5)
    make, made_of = data.__reduce__()
    for index in range(8):
        ours, theirs = (
            d.typed_record("words", "train", index, 3)[1] for d in (data, make(*made_of))
        )
        assert ours == theirs


def test_sets_of_captions_ask_what_describe_asks(tmp_path: Path) -> None:
    data = DemoData(None, mix={"words": 1.0}, upper_words=True)
    benchmark.build(data, tmp_path, ["words", "words_captions"], support=200)
    read, told = (
        [json.loads(line) for line in (tmp_path / name / "records.jsonl").read_text().splitlines()]
        for name in ("words", "words_captions")
    )
    assert len(read) == len(told) == 500
    assert {line["question"] for line in told} == {QUESTION}
    assert [line["answer"] for line in told] == [f"The word {line['answer']}." for line in read]
    for line in (read[0], read[-1]):
        pictures = [(tmp_path / name / line["image"]) for name in ("words", "words_captions")]
        assert pictures[0].read_bytes() == pictures[1].read_bytes()


def test_unknown_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set 'openmoji_captions' is unknown"):
        benchmark.build(DemoData(None), tmp_path, ["openmoji_captions"])
