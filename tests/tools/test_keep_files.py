"""The tool that keeps files: complete or not at all, and never anew."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest

from tools.keep_files import __main__ as keep_files
from tools.keep_files.inputs import make_inputs, read_inputs
from tools.keep_files.kinds import KINDS
from tools.keep_files.reading import difference, read_manifest

KIND = "plain_int8"


@pytest.mark.once
def test_a_file_is_kept_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path), "--kinds", KIND, "--commit", "abc"]
    keep_files.main(arguments)
    archive = tmp_path / keras.backend.backend() / f"{KIND}.tar.xz"
    with tarfile.open(archive) as file:
        assert file.getnames() == [KINDS[KIND].name]
    entry = read_manifest(tmp_path)["files"][f"{keras.backend.backend()}/{KIND}"]
    assert entry["versions"]["commit"] == "abc" and entry["versions"]["keras"] == keras.__version__
    assert {"Int8Conv", "Int8Conv2D", "Int8DepthwiseConv2D"} <= set(entry["registered"])
    before = archive.stat().st_mtime_ns
    keep_files.main(arguments)
    assert archive.stat().st_mtime_ns == before and "kept already" in capsys.readouterr().out
    assert not list(tmp_path.glob(".*"))


@pytest.mark.once
def test_the_kept_inputs_are_those_that_are_made() -> None:
    kept = read_inputs(Path(__file__).parents[1] / "kept")
    for name, array in make_inputs().items():
        np.testing.assert_array_equal(kept[name], array)


@pytest.mark.once
def test_differences() -> None:
    kept = np.array([1.0, -4.0], "float32")
    assert difference(np.array([1.0, -3.0]), kept) == 0.25
    assert difference(np.array([1.0, np.nan]), kept) == float("inf")
    assert difference(kept[:1], kept) == float("inf")


@pytest.mark.once
def test_the_report_beside_them_is_of_whole_sets() -> None:
    report = json.loads((Path(__file__).parents[1] / "kept" / "demo_report.json").read_text())
    sizes = {entry["name"]: entry["n"] for entry in report["sets"]}
    assert sizes["easy_vqa"] == 9673 and sizes["clothing"] == 341 and sizes["scenes"] == 2349
    assert report["date"] and report["machine"]["processor"]
