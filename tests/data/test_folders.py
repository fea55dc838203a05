"""Folders that are whole at every moment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dl_techniques.data import folders
from dl_techniques.data.folders import put_in_place, refuse_file, updated_folder
from dl_techniques.errors import PresetError
from tests.killed import contents, states_when_killed

pytestmark = pytest.mark.once


def fill(folder: Path, text: str, names: tuple[str, ...] = ("a", "b", "deep/c")) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_new_files_come_and_others_stay(tmp_path: Path) -> None:
    dest = tmp_path / "model"
    fill(dest, "old", ("a", "deep/c", "deep/README", "stale/x"))
    with updated_folder(dest, lambda name, new: name.startswith("stale")) as folder:
        fill(folder, "new")
        assert contents(dest)["a"] == b"old"
    assert contents(dest) == {
        "a": b"new", "b": b"new", "deep/c": b"new", "deep/README": b"old"
    }  # fmt: skip
    assert os.listdir(tmp_path) == ["model"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    dest = tmp_path / "model"
    fill(dest, "old")
    with pytest.raises(OSError, match="full"), updated_folder(dest) as folder:
        fill(folder, "new", ("a",))
        raise OSError("disk full")
    assert set(contents(dest).values()) == {b"old"} and os.listdir(tmp_path) == ["model"]


def test_parts_write_into_the_folder_of_the_whole(tmp_path: Path) -> None:
    with updated_folder(tmp_path / "model") as folder:
        with updated_folder(folder) as same:
            assert same == folder
        with updated_folder(tmp_path / "other") as other:
            assert other != folder


@pytest.mark.parametrize("exchange", [True, False])
def test_killed_at_any_moment_every_file_is_of_one_state(
    exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchange:
        monkeypatch.setattr(folders, "_exchange", lambda left, right: False)
    dest = tmp_path / "model"
    fill(dest, "old")

    def write() -> None:
        with updated_folder(dest) as folder:
            fill(folder, "new")

    states = states_when_killed(write, tmp_path)
    assert len(states) > 6
    for state in states:
        found = {name.split("/", 1)[1]: c for name, c in state.items() if name[0] != "."}
        if exchange:
            assert set(found) == {"a", "b", "deep/c"} and len(set(found.values())) == 1
        else:  # for a moment the old folder has another name
            whole = found or {n: c for n, c in state.items() if n.startswith(".model.old")}
            assert len(whole) == 3 and len(set(whole.values())) == 1
    write()
    assert set(contents(dest).values()) == {b"new"} and os.listdir(tmp_path) == ["model"]


def test_a_folder_that_cannot_be_renamed_is_written_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "old", ("a", "README", "stale"))
    monkeypatch.chdir(tmp_path)
    with updated_folder(".", lambda name, new: name == "stale") as folder:
        fill(folder, "new")
        assert contents(tmp_path)["a"] == b"old"
    assert contents(tmp_path) == {"a": b"new", "b": b"new", "deep/c": b"new", "README": b"old"}
    assert os.listdir(".")  # the folder that the process stands in is still there


def test_a_link_to_a_folder_stays_one(tmp_path: Path) -> None:
    fill(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    with updated_folder(tmp_path / "link") as folder:
        fill(folder, "new")
    assert (tmp_path / "link").is_symlink()
    assert set(contents(tmp_path / "real").values()) == {b"new"}


def test_what_is_put_in_place_replaces_the_old(tmp_path: Path) -> None:
    fill(tmp_path / "model", "old", ("a", "b"))
    fill(tmp_path / "new", "new", ("a",))
    put_in_place(tmp_path / "new", tmp_path / "model")
    assert contents(tmp_path) == {"model/a": b"new"}


@pytest.mark.parametrize("place", ["file", "file/model"])
def test_a_file_in_the_way_is_named(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for write in (refuse_file, lambda dest: updated_folder(dest).__enter__()):
        with pytest.raises(PresetError, match="file' is a file and no folder; give the name"):
            write(tmp_path / place)
    assert contents(tmp_path) == {"file": b"mine"}
