"""The tables of the model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dl_techniques
from recipes.demo import elsewhere, model_card, photo_benchmark
from recipes.demo.model_card import TOLD_TARGETS, WHAT, lost, table, told_table

pytestmark = pytest.mark.once
EXACT: dict[str, Any] = {
    "name": "words", "n": 500, "exact_match": 0.9, "interval": [0.87, 0.92], "majority": 0.1,
    "question_only": 0.0, "shuffled": 0.01, "seconds": 1.0,
}  # fmt: skip
TOLD = {
    "accepted": 0.881, "accepted_interval": [0.85, 0.9], "majority": 0.01, "plain": 0.8,
    "plain_right": 0.95, "plain_right_interval": [0.93, 0.96], "hedged": 0.15,
    "hedged_right": 0.7, "refused": 0.05, "asked_no": 0, "things": 0,
}  # fmt: skip
PHOTOS = {**EXACT, "name": "photos_caltech", "told": TOLD}


def test_sets_of_exact_answers_have_one_table() -> None:
    assert "| 90.0 (87.0-92.0) | 10.0 | 0.0 | 1.0 | 90 |" in table({"sets": [EXACT]})
    assert told_table({"sets": [EXACT]}) == ""


def test_how_answers_are_put_stands_beside_its_targets() -> None:
    lines = told_table({"sets": [EXACT, PHOTOS]}).splitlines()
    assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1
    assert "| 88.1 (85.0-90.0), target 85 | 1.0 | - | - | 80.0, target 75 |" in lines[2]
    assert "| 95.0 (93.0-96.0), target 93 | 15.0 | 70.0 | 5.0 | - | - |" in lines[2]


def test_every_set_is_explained() -> None:
    assert set(WHAT) >= {*photo_benchmark.SETS, *elsewhere.SETS}
    assert set(TOLD_TARGETS) <= set(photo_benchmark.SETS)


def test_what_earlier_weights_did_better_is_told() -> None:
    before = {"date": "2026-11-30T06:00:00", "sets": [{"name": "words", "exact_match": 0.914}]}
    said = "- The weights of 2026-11-30 were better at some sets: words 91.4.\n"
    assert lost({"sets": [EXACT, PHOTOS]}, before) == said
    assert lost({"sets": [{**EXACT, "exact_match": 0.92}]}, before) == ""


def test_the_card_is_of_the_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = Path(dl_techniques.__file__).parent / "presets" / "demo"
    preset = tmp_path / "preset"
    preset.mkdir()
    for name in ("metadata.json", "config.json"):
        (preset / name).write_bytes((shipped / name).read_bytes())
    machine = {"processor": "a processor", "cores": 2, "backend": "jax"}
    report = {"date": "2026-12-01T00:00:00", "machine": machine, "sets": [EXACT, PHOTOS]}
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    model_card.main(["--report", str(tmp_path / "report.json"), "--preset", str(preset)])
    card = (preset / "README.md").read_text(encoding="utf-8")
    start = card[: card.index("## What it can do")]
    assert start == (shipped / "README.md").read_text(encoding="utf-8")[: len(start)]
    assert table(report) in card and told_table(report) in card
    assert "2026-12-01, a processor, 2 cores, jax backend." in card
    assert table(report) in capsys.readouterr().out
