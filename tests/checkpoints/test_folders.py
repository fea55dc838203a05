"""Folders that appear whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from dl_techniques.checkpoints.folders import replacing_folder
from dl_techniques.errors import PresetError

pytestmark = pytest.mark.once


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folder_appears_at_the_end(tmp_path: Path) -> None:
    dest = tmp_path / "model"
    with replacing_folder(dest) as folder:
        (folder / "a").write_text("1")
        assert not dest.exists()
    assert names(dest) == ["a"] and names(tmp_path) == ["model"]


def test_failure_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    dest = tmp_path / "model"
    dest.mkdir()
    (dest / "old").write_text("1")
    with pytest.raises(RuntimeError), replacing_folder(dest) as folder:
        (folder / "a").write_text("1")
        raise RuntimeError
    assert names(dest) == ["old"] and names(tmp_path) == ["model"]


def test_old_contents_do_not_survive(tmp_path: Path) -> None:
    dest = tmp_path / "model"
    dest.mkdir()
    (dest / "old").write_text("1")
    with replacing_folder(dest) as folder:
        (folder / "new").write_text("1")
    assert names(dest) == ["new"] and names(tmp_path) == ["model"]


@pytest.mark.parametrize(("stamp", "kept"), [("same", True), ("other", False)])
def test_interrupted_work_goes_on_only_with_the_same_stamp(
    stamp: str, kept: bool, tmp_path: Path
) -> None:
    dest = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt), replacing_folder(dest, "same") as folder:
        (folder / "shard").write_text("1")
        raise KeyboardInterrupt
    assert not dest.exists()
    with replacing_folder(dest, stamp) as folder:
        assert (folder / "shard").exists() == kept
        (folder / "other").write_text("1")
    assert names(dest) == (["other", "shard"] if kept else ["other"])
    assert names(tmp_path) == ["model"]


def test_a_file_in_the_way_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(PresetError, match="is a file and no folder; give the name of a new"),
        replacing_folder(tmp_path / "file"),
    ):
        raise AssertionError("nothing is begun")
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "mine"
