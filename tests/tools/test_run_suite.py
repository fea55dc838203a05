"""The runner of the suite: what it counts, and that it cannot mistake a crash for a pass."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tools import run_suite

pytestmark = pytest.mark.once

REPORT = """<testsuites>
<testsuite name="pytest" tests="{tests}" failures="1" errors="2" skipped="3">
</testsuite></testsuites>"""


def test_counts_a_report(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.write_text(REPORT.format(tests=10))
    assert run_suite.count(path) == {"passed": 4, "failed": 3, "skipped": 3}


def test_a_missing_report_is_a_failure(tmp_path: Path) -> None:
    assert run_suite.count(tmp_path / "none.xml")["failed"] == 1


def test_reasons_and_files_of_a_report(tmp_path: Path) -> None:
    path = tmp_path / "report.xml"
    path.write_text(
        '<testsuites><testsuite><testcase classname="tests.a" time="40.5"/>'
        '<testcase classname="tests.a" time="20"><skipped message="JAX\n only"/></testcase>'
        '<testcase classname="tests.b" time="1"><skipped message="slow"/></testcase>'
        "</testsuite></testsuites>"
    )
    assert run_suite.skip_reasons(path) == {"JAX only": 1, "slow": 1}
    assert run_suite.file_seconds(path) == {"tests.a": 60.5, "tests.b": 1.0}
    assert not run_suite.skip_reasons(tmp_path / "none") and not run_suite.file_seconds(
        tmp_path / "none"
    )


def test_skips_stand_in_one_table() -> None:
    counted = {"jax": Counter({"slow": 12}), "torch": Counter({"slow": 3, "JAX only": 1})}
    assert run_suite.skip_table(counted) == [
        "    jax  torch  skipped because",
        "      -      1  JAX only",
        "     12      3  slow",
    ]
    assert run_suite.skip_table({"jax": Counter()}) == []


def test_the_end_of_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(backend: str, *arguments: Any) -> dict[str, int]:
        arguments[-1].write_text(
            '<testsuite><testcase classname="tests.slow" time="61">'
            f'<skipped message="not on {backend}"/></testcase></testsuite>'
        )
        return {"passed": 1, "failed": 0, "skipped": 1}

    monkeypatch.setattr(run_suite, "run_backend", run)
    assert run_suite.main(["--backends", "jax", "torch"]) == 0
    end = capsys.readouterr().out.splitlines()[-8:]
    assert [line.split() for line in end[:3]] == [
        ["jax", "torch", "skipped", "because"],
        ["1", "-", "not", "on", "jax"],
        ["-", "1", "not", "on", "torch"],
    ]
    assert end[3].startswith("== jax: {'passed': 1") and end[3].endswith(" s")
    assert end[4] == "   61 s, more than 60: tests.slow"
    assert end[-1] == "total: 2 passed, 0 failed, 2 skipped"


def test_cores_are_shared_between_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_suite.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run_suite.suite_environment("jax", 2)["OMP_NUM_THREADS"] == "4"
    assert run_suite.suite_environment("jax", 0)["OMP_NUM_THREADS"] == "8"
    assert run_suite.suite_environment("jax", 16)["OMP_NUM_THREADS"] == "1"
    assert run_suite.suite_environment("torch", 2)["KERAS_BACKEND"] == "torch"


def test_jax_compiles_quickly_unless_all_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    quickly = run_suite.suite_environment("jax", 2)
    assert quickly["XLA_FLAGS"] == run_suite.QUICKLY_COMPILED
    assert "XLA_FLAGS" not in run_suite.suite_environment("jax", 2, full=True)
    assert "XLA_FLAGS" not in run_suite.suite_environment("tensorflow", 2)
    monkeypatch.setenv("XLA_FLAGS", "--mine")
    assert run_suite.suite_environment("jax", 2)["XLA_FLAGS"] == "--mine"


def pretend(monkeypatch: pytest.MonkeyPatch, results: dict[str, dict[str, int]]) -> None:
    monkeypatch.setattr(run_suite, "run_backend", lambda backend, *_: results[backend])


@pytest.mark.parametrize(
    ("jax", "torch", "status"),
    [((3, 0), (3, 0), 0), ((3, 0), (2, 1), 1), ((0, 0), (0, 0), 1)],
)
def test_total_and_exit_code(
    jax: tuple[int, int],
    torch: tuple[int, int],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ("passed", "failed", "skipped")
    results = {
        "jax": dict(zip(names, (*jax, 1), strict=True)),
        "torch": dict(zip(names, (*torch, 1), strict=True)),
    }
    pretend(monkeypatch, results)
    assert run_suite.main(["--backends", "jax", "torch"]) == status
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"total: {jax[0] + torch[0]} passed, {jax[1] + torch[1]} failed, 2 skipped"


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["--backends", "torch", "jax"], {"torch": True, "jax": False}),
        (["--backends", "tensorflow", "jax"], {"tensorflow": False, "jax": True}),
        (["--backends", "torch", "jax", "--full"], {"torch": True, "jax": True}),
    ],
)
def test_what_asks_nothing_of_the_backend_runs_on_one(
    arguments: list[str], where: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = {}

    def call(command: list[str], env: dict[str, str], **_: Any) -> int:
        commands[env["KERAS_BACKEND"]] = command
        return 0

    monkeypatch.setattr(run_suite.subprocess, "call", call)
    run_suite.main(arguments)
    assert {name: "--skip-once" not in command for name, command in commands.items()} == where


def test_marked_tests_are_left_out_when_asked(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((run_suite.ROOT / "tests/conftest.py").read_text())
    (tmp_path / "test_two.py").write_text(
        "import pytest\n\n@pytest.mark.once\ndef test_a(): ...\n\ndef test_b(): ...\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(run_suite.ROOT / "pyproject.toml")]
    command += ["--rootdir", str(tmp_path), "-p", "no:cacheprovider", str(tmp_path)]
    command += ["--collect-only", "--run-full"]  # which asks for no backend
    for more, said in ([], "2 tests collected"), (["--skip-once"], "1/2 tests collected"):
        ended = subprocess.run(command + more, capture_output=True, text=True, check=False)
        assert said in ended.stdout, ended.stdout + ended.stderr


def test_a_crash_of_pytest_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_suite.subprocess, "call", lambda *_, **__: 3)
    counted = {"passed": 5, "failed": 0, "skipped": 0}
    monkeypatch.setattr(run_suite, "count", lambda _: dict(counted))
    assert run_suite.run_backend("jax", 0, False, [])["failed"] == 1
