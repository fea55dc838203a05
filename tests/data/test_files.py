"""A file is whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from dl_techniques.data.files import atomic_writer

pytestmark = pytest.mark.once


def test_writes_text_and_bytes(tmp_path: Path) -> None:
    with atomic_writer(tmp_path / "new" / "a.txt") as file:
        file.write("é")
        assert not (tmp_path / "new" / "a.txt").exists()
    with atomic_writer(tmp_path / "b.bin", binary=True) as file:
        file.write(b"\xff")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "é".encode()
    assert (tmp_path / "b.bin").read_bytes() == b"\xff"
    plain = tmp_path / "plain"
    plain.touch()
    assert (tmp_path / "b.bin").stat().st_mode == plain.stat().st_mode


def test_a_failure_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_writer(path) as file:
        file.write("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
