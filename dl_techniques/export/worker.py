"""Exporting in a process of its own, for formats whose backend is not the current one.

A process has one Keras backend for life. The caller writes the job into a folder, starts this
module there, and reads the report, or the error, back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dl_techniques import errors
from dl_techniques.errors import DLTechniquesError
from dl_techniques.export.report import ExportReport
from dl_techniques.export.request import ExportRequest

JOB, RESULT, LOG = "job.json", "result.json", "log.txt"


def run_in_worker(
    backend: str, source: str | Path, request: ExportRequest, path: Path
) -> ExportReport:
    """Exports in a fresh process.

    Args:
        backend: Keras backend of that process.
        source: what `load` takes.
        request: what is wanted.
        path: where to write.

    Raises:
        DLTechniquesError: the very error that the process met.
        RuntimeError: the process met a bug, or was killed; its last words are in the message.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = {"source": str(source), "request": request.to_json(), "path": str(path)}
        (folder / JOB).write_text(json.dumps(job), encoding="utf-8")
        with (folder / LOG).open("wb") as log:
            # An interrupt ends the child as well: `run` kills it before it passes the error on.
            status = subprocess.run(
                [sys.executable, "-m", "dl_techniques.export.worker", name],
                env=environment_of(backend, os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        return _read_result(folder, backend, status)


def environment_of(backend: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of the process: its backend, this package's place, no GPU, a quiet log."""
    package = str(Path(errors.__file__).resolve().parents[1])
    places = [package, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        **environment,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join(places),
        # The caller's backend may hold the GPU's memory, and files are checked on the CPU.
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def _read_result(folder: Path, backend: str, status: int) -> ExportReport:
    if not (folder / RESULT).is_file():
        words = (folder / LOG).read_text(encoding="utf-8", errors="replace")[-2000:]
        raise RuntimeError(
            f"the export process on {backend} ended with status {status} (-9 is often a lack of "
            f"memory) and without a result; it said last:\n{words}"
        )
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    if "report" in result:
        return ExportReport.from_json(result["report"])
    kind = getattr(errors, result["error"], None)
    if kind is None:
        raise RuntimeError(f"the export process on {backend} failed:\n{result['message']}")
    raise kind(result["message"])


def do_job(folder: Path) -> dict[str, Any]:
    """What `run_in_worker` reads: the report, or the kind of error and its message."""
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    path = Path(job["path"])
    try:
        from dl_techniques.export.perform import perform
        from dl_techniques.export.staging import plain_disk_errors
        from dl_techniques.loading.source import load

        # `path` stands in the hidden folder beside the target, whose name the user knows.
        with plain_disk_errors(path.parent.parent / path.name):
            model = load(job["source"])
            report = perform(model, ExportRequest(**job["request"]), path)
    except DLTechniquesError as error:
        return {"error": type(error).__name__, "message": str(error)}
    except Exception:
        return {"error": "", "message": traceback.format_exc()}
    return {"report": report.to_json()}


def main() -> None:
    """Does the job in the folder that the command line names."""
    folder = Path(sys.argv[1])
    (folder / RESULT).write_text(json.dumps(do_job(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
