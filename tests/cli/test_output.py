"""Files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dl_techniques.cli import output
from dl_techniques.errors import DLTechniquesError

pytestmark = pytest.mark.once


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    output.write_atomically(path, "one")
    output.write_atomically(path, "zwei ß")
    assert path.read_text(encoding="utf-8") == "zwei ß"
    assert os.listdir(tmp_path) == ["report.json"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    output.write_atomically(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    output.write_atomically(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output.os, "replace", full)
    with pytest.raises(DLTechniquesError, match="No space left"):
        output.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.json"]


def test_an_impossible_place_is_known_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(DLTechniquesError, match="does not exist"):
        output.check_writable(tmp_path / "no" / "report.json")
    with pytest.raises(DLTechniquesError, match="is a folder"):
        output.check_writable(tmp_path)
