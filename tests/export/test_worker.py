"""Exports in another process."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dl_techniques.errors import ExportError, MissingExtraError, PresetError
from dl_techniques.export import worker
from dl_techniques.export.report import ExportReport
from dl_techniques.export.request import ExportRequest
from tests.export.small_exports import small

REPORT = ExportReport("onnx", "encoder", "float32", "m.onnx", {"m.onnx": 1}, "x 1", ())


def start_instead(
    monkeypatch: pytest.MonkeyPatch, result: dict[str, Any] | None, status: int = 0
) -> list[list[str]]:
    """Puts a result where the process would, without starting one."""
    calls: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        calls.append(command)
        assert options["env"]["KERAS_BACKEND"] == "torch"
        options["stdout"].write(b"its last words")
        if result is not None:
            (Path(command[-1]) / worker.RESULT).write_text(json.dumps(result))
        return subprocess.CompletedProcess(command, status)

    monkeypatch.setattr(worker.subprocess, "run", run)
    return calls


def run_torch(path: Path) -> ExportReport:
    return worker.run_in_worker("torch", "demo", ExportRequest("torch"), path)


def test_a_report_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = start_instead(monkeypatch, {"report": REPORT.to_json()})
    assert run_torch(tmp_path / "m") == REPORT
    assert not Path(calls[0][-1]).exists()


@pytest.mark.parametrize("kind", [ExportError, PresetError, MissingExtraError])
def test_an_error_comes_back_as_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    start_instead(monkeypatch, {"error": kind.__name__, "message": "one line"})
    with pytest.raises(kind, match="^one line$"):
        run_torch(tmp_path / "m")


def test_a_bug_is_no_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start_instead(monkeypatch, {"error": "", "message": "Traceback ..."})
    with pytest.raises(RuntimeError, match="on torch failed:\nTraceback"):
        run_torch(tmp_path / "m")
    start_instead(monkeypatch, None, -9)
    with pytest.raises(RuntimeError, match="status -9 .*lack of memory.*\nits last words"):
        run_torch(tmp_path / "m")


def test_the_process_finds_this_package_and_no_gpu() -> None:
    variables = worker.environment_of("torch", {"PYTHONPATH": "/a", "KERAS_BACKEND": "jax"})
    assert variables["KERAS_BACKEND"] == "torch" and variables["CUDA_VISIBLE_DEVICES"] == "-1"
    package, *rest = variables["PYTHONPATH"].split(os.pathsep)
    assert (Path(package) / "dl_techniques" / "export" / "worker.py").is_file() and rest == ["/a"]


def test_the_job_turns_errors_into_values(tmp_path: Path) -> None:
    job = {"source": str(tmp_path / "no.keras"), "request": {"format": "onnx"}, "path": "m"}
    (tmp_path / worker.JOB).write_text(json.dumps(job))
    result = worker.do_job(tmp_path)
    assert result["error"] == "PresetError" and "does not exist" in result["message"]
    small().save_to_preset(tmp_path / "preset")
    job = {**job, "source": str(tmp_path / "preset"), "request": {"what": 1}}
    (tmp_path / worker.JOB).write_text(json.dumps(job))
    result = worker.do_job(tmp_path)
    assert result["error"] == "" and "TypeError" in result["message"]
