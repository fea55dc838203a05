"""Whole or not at all, and the old file intact."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from dl_techniques.errors import ExportError
from dl_techniques.export.staging import check_target, plain_disk_errors, staged
from tests.export.small_exports import names_in

pytestmark = pytest.mark.once


def test_files_and_what_belongs_to_them_move_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "m.xml"
    target.write_text("old")
    with staged(target) as path:
        path.write_text("new")
        path.with_suffix(".bin").write_text("weights")
        assert target.read_text() == "old"
    assert target.read_text() == "new" and names_in(tmp_path) == ["m.bin", "m.xml"]


def test_folders_replace_folders(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("")
    with staged(target) as path:
        path.mkdir()
        (path / "new").write_text("")
        assert names_in(target) == ["old"]
    assert names_in(target) == ["new"] and names_in(tmp_path) == ["model"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ExportError, RuntimeError])
def test_nothing_is_left_of_what_went_wrong(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "m.onnx"
    target.write_text("old")
    with pytest.raises(error), staged(target) as path:
        path.write_text("half")
        raise error("x")
    assert target.read_text() == "old" and names_in(tmp_path) == ["m.onnx"]


def test_what_a_killed_run_left_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".m.onnx.export").mkdir()
    (tmp_path / ".m.onnx.export" / "rest").write_text("")
    with staged(tmp_path / "m.onnx") as path:
        path.write_text("new")
    assert names_in(tmp_path) == ["m.onnx"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        RuntimeError("UNKNOWN: a/b; No space left on device [Op:SaveV2]"),
    ],
)
def test_a_full_or_closed_disk_is_one_line(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(ExportError, match="cannot be written .*make room") as caught,
        staged(tmp_path / "m.onnx"),
    ):
        raise error
    assert "\n" not in str(caught.value) and names_in(tmp_path) == []


def test_other_errors_keep_their_kind(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), plain_disk_errors(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "No such file")


def test_targets_are_checked_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file.onnx").write_text("")
    (tmp_path / "folder.onnx").mkdir()
    check_target(tmp_path / "new.onnx", ".onnx", False, False)
    check_target(tmp_path / "file.onnx", ".onnx", False, True)
    with pytest.raises(ExportError, match="must end in .onnx"):
        check_target(tmp_path / "new.tflite", ".onnx", False, False)
    with pytest.raises(ExportError, match="make it first"):
        check_target(tmp_path / "no" / "new.onnx", ".onnx", False, False)
    with pytest.raises(ExportError, match="exists already"):
        check_target(tmp_path / "file.onnx", ".onnx", False, False)
    with pytest.raises(ExportError, match="is a folder and would become a file"):
        check_target(tmp_path / "folder.onnx", ".onnx", False, True)
    with pytest.raises(ExportError, match="is a file and would become a folder"):
        check_target(tmp_path / "file.onnx", "", True, True)
    monkeypatch.chdir(tmp_path / "folder.onnx")
    with pytest.raises(ExportError, match="the folder that you are in"):
        check_target(Path("."), "", True, True)
