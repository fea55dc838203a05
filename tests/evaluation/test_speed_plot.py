"""The plot of an encoder's times."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dl_techniques.errors import DLTechniquesError, MissingExtraError
from dl_techniques.evaluation.speed_encoder import EncoderTime
from dl_techniques.evaluation.speed_plot import check_plot, plot_encoder_times

pytestmark = pytest.mark.once

TIMES = [
    EncoderTime(form, side, 1, side**2 * 1e-7 * (1 + i), 1.0)
    for i, form in enumerate(("branched", "fused"))
    for side in (256, 512, 1024)
]


def test_the_plot_names_its_lines_and_their_growth(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    import matplotlib

    path = tmp_path / "growth.svg"
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot_encoder_times(TIMES, path, "nano here")
    text = path.read_text(encoding="utf-8")
    for words in ("branched, batch 1, pixels^1.00", "fused, batch 1", "nano here", "1024"):
        assert words in text
    assert [p.name for p in tmp_path.iterdir()] == ["growth.svg"]


def test_a_picture_file_replaces_the_old_one(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "growth.png"
    path.write_bytes(b"old")
    plot_encoder_times(TIMES[:1], path, "one size")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DLTechniquesError, match=r"growth.txt.*\.png"):
        check_plot(tmp_path / "growth.txt")
    with pytest.raises(DLTechniquesError, match="no folder"):
        check_plot(tmp_path / "nowhere" / "growth.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[notebooks\]'"):
        check_plot(tmp_path / "growth.png")
