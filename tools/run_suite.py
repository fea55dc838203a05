"""Runs the suite once on each backend, in a process of its own.

At the end stand why tests were skipped, the files that take long, a line a backend, and one total.

Example:
    python tools/run_suite.py --backends jax torch -- tests/layers -k depthwise
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
BACKENDS = ("tensorflow", "jax", "torch")
NO_TESTS_COLLECTED = 5
# where tests that ask nothing of the backend run, if it is among those asked for
QUICKEST = "torch"
# seconds that the tests of one file may take
FILE_LIMIT = 60


# Compiling is most of a run on JAX: LLVM's own passes, and emitters that take twice as long.
QUICKLY_COMPILED = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"


def suite_environment(backend: str, workers: int, full: bool = False) -> dict[str, str]:
    """The variables of one run: its backend, and as many threads as its share of the cores.

    Only a full run lets LLVM optimize what JAX compiles.
    """
    threads = str(max(1, (os.cpu_count() or 1) // max(1, workers)))
    environment = dict(os.environ, KERAS_BACKEND=backend, TF_CPP_MIN_LOG_LEVEL="2")
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        environment.setdefault(name, threads)
    environment.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    if backend == "jax" and not full:
        environment.setdefault("XLA_FLAGS", QUICKLY_COMPILED)
    return environment


def count(report: Path) -> dict[str, int]:
    """Passed, failed and skipped of one JUnit report; a missing report counts as a failure."""
    if not report.exists():
        return {"passed": 0, "failed": 1, "skipped": 0}
    total = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        for key in total:
            total[key] += int(suite.get(key, "0"))
    failed = total["failures"] + total["errors"]
    passed = total["tests"] - failed - total["skipped"]
    return {"passed": passed, "failed": failed, "skipped": total["skipped"]}


def skip_reasons(report: Path) -> Counter[str]:
    """How often each reason for skipping occurs in a JUnit report."""
    if not report.exists():
        return Counter()
    skipped = ElementTree.parse(report).getroot().iter("skipped")
    return Counter(" ".join(str(skip.get("message", "")).split()) for skip in skipped)


def file_seconds(report: Path) -> dict[str, float]:
    """The seconds of each test file in a JUnit report, by its module."""
    if not report.exists():
        return {}
    seconds: dict[str, float] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        module = str(case.get("classname", ""))
        seconds[module] = seconds.get(module, 0.0) + float(case.get("time", "0"))
    return seconds


def skip_table(reasons: dict[str, Counter[str]]) -> list[str]:
    """The lines of a table: why, and how many tests on each backend.

    Args:
        reasons: of each backend, by its name.
    """
    rows = sorted({reason for counted in reasons.values() for reason in counted})
    if not rows:
        return []
    width = max(len(name) for name in reasons)
    heads = "".join(f"{name:>{width + 2}}" for name in reasons)
    lines = [f"{heads}  skipped because"]
    for reason in rows:
        counts = "".join(f"{counted[reason] or '-':>{width + 2}}" for counted in reasons.values())
        lines.append(f"{counts}  {reason}")
    return lines


def run_backend(
    backend: str,
    workers: int,
    full: bool,
    extra: list[str],
    once: bool = True,
    report: Path | None = None,
) -> dict[str, int]:
    """Runs pytest on one backend.

    Args:
        backend: name for KERAS_BACKEND.
        workers: processes of pytest-xdist; 0 runs in one process.
        full: also the tests marked `full`.
        extra: arguments passed on to pytest.
        once: also the tests marked `once`.
        report: where the JUnit report goes; not kept without it.

    Returns:
        The numbers of passed, failed and skipped tests; a crash of pytest counts as a failure.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = report or Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--durations=25"]
        command += [f"--junitxml={report}"]
        command += ["-n", str(workers), "--dist", "worksteal"] if workers else []
        command += ["--run-full"] if full else []
        command += [] if once else ["--skip-once"]
        environment = suite_environment(backend, workers, full)
        status = subprocess.call(command + extra, cwd=ROOT, env=environment)
        result = count(report)
    if status not in (0, NO_TESTS_COLLECTED) and result["failed"] == 0:
        result["failed"] = 1
    return result


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line; what follows `--` goes to pytest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--full", action="store_true", help="also the slow tests")
    parser.add_argument("extra", nargs="*", help="arguments for pytest, after --")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Runs the suite on each backend in turn; 0 if nothing failed and something passed."""
    options = parse(argv)
    total = {"passed": 0, "failed": 0, "skipped": 0}
    quickest = QUICKEST if QUICKEST in options.backends else options.backends[-1]
    lines: list[str] = []
    reasons: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for backend in options.backends:
            print(f"== {backend}", flush=True)
            start, report = time.monotonic(), Path(folder) / f"{backend}.xml"
            once = options.full or backend == quickest
            result = run_backend(
                backend, options.workers, options.full, options.extra, once, report
            )
            lines.append(f"== {backend}: {result} in {time.monotonic() - start:.0f} s")
            print(lines[-1], flush=True)
            total = {key: total[key] + result[key] for key in total}
            reasons[backend] = skip_reasons(report)
            lines += [
                f"   {seconds:.0f} s, more than {FILE_LIMIT}: {module}"
                for module, seconds in file_seconds(report).items()
                if seconds > FILE_LIMIT
            ]
    print("\n".join([*skip_table(reasons), *lines]))
    print(f"total: {total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    return 0 if total["failed"] == 0 and total["passed"] > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
