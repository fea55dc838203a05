"""A newcomer's processes: the first example and the commands, in the environment of `make demo`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.demo_environment import demo_environment
from tests.pages import BASH, EXPORTS, NAMED, PYTHON, ROOT, VARIABLES, clone, printed, run

pytestmark = pytest.mark.once
BLOCKS = pytest.mark.parametrize(
    ("code", "shown"), [pytest.param(code, shown, id=name) for name, code, shown in NAMED]
)
QUICK = ("describe", "ask", "evaluate", "presets")


def lines_of(kind: str) -> list[str]:
    """The commands of the `bash` blocks: quick ones, slow ones, or those that write exports."""
    lines = [re.sub(r"\s+#.*", "", line) for line in BASH.splitlines() if line]
    lines = [line for line in lines if not line.startswith("export ")]
    quick = [line for line in lines if line.split()[1] in (*QUICK, "chat")]
    exports = [line for line in lines if line.split()[1] == "export" or "demo_litert" in line]
    found = {"quick": quick, "exports": exports}
    found["slow"] = [line for line in lines if line not in quick + exports]
    return found[kind]


@pytest.mark.full
@BLOCKS
def test_a_newcomers_python_prints_the_same(code: str, shown: str, tmp_path: Path) -> None:
    """In the environment of `make demo`; where files are exported, in that of the suite."""
    if EXPORTS in code:
        programs, variables = Path(sys.executable).parent, {**VARIABLES, "PYTHONPATH": str(ROOT)}
    else:
        programs, variables = demo_environment(), VARIABLES
    done = run([str(programs / "python"), "-c", code], clone(tmp_path), programs, variables)
    assert done.returncode == 0, done.stderr
    assert printed(done.stdout) == printed(shown)


def test_the_first_example_needs_no_variable(tmp_path: Path) -> None:
    code, shown = PYTHON[0]
    programs = demo_environment()
    done = run([str(programs / "python"), "-c", code], clone(tmp_path), programs, {})
    assert (done.returncode, printed(done.stdout)) == (0, printed(shown)), done.stderr
    (said,) = [line for line in done.stderr.splitlines() if "KERAS_BACKEND" in line]
    assert "Keras runs on jax" in said


def run_lines(lines: list[str], folder: Path, programs: Path) -> None:
    assert lines
    clone(folder)
    for line in lines:
        done = run(["bash", "-c", line], folder, programs)
        assert done.returncode == 0, f"{line}: {done.stderr}"
        assert done.stdout.strip() and "Traceback" not in done.stderr, line
        if line.split()[1] in QUICK[:2]:
            (times,) = done.stderr.splitlines() or [""]
            assert times.startswith("jax: ") or "--json" in line


def test_quick_commands_run_on_a_clone(tmp_path: Path) -> None:
    run_lines(lines_of("quick"), tmp_path, demo_environment())


@pytest.mark.full
def test_slow_commands_run_on_a_clone(tmp_path: Path) -> None:
    run_lines(lines_of("slow"), tmp_path, demo_environment())


@pytest.mark.full
def test_exporting_commands_run_on_a_clone(tmp_path: Path) -> None:
    """Each line once: the pages share some, and a file is not written over."""
    (tmp_path / "bin").mkdir()
    programs = tmp_path / "bin"
    (programs / "python").symlink_to(sys.executable)
    command = f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m dl_techniques "$@"\n'
    (programs / "fastvlm").write_text(command)
    (programs / "fastvlm").chmod(0o755)
    outputs: dict[str, str] = {}
    for line in lines_of("exports"):
        outputs.setdefault(line.partition("--output ")[2] or line, line)
    run_lines(list(outputs.values()), tmp_path, programs)


@pytest.mark.full
def test_the_demo_runs(tmp_path: Path) -> None:
    done = run(["sh", "examples/demo.sh"], clone(tmp_path), demo_environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("$ fastvlm ask") == 7 and len(done.stderr.splitlines()) == 1
