"""The examples of README and docs run as they stand there, where the page says they run.

A Python block prints what the `text` block below it shows, and nothing without one. Blocks called
`bash` need nothing but a clone; `sh` and `py` need a network, files of the reader's or a Mac.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dl_techniques.cli.main import build_parser
from tests.demo_environment import ROOT, demo_environment, newcomers_variables

pytestmark = pytest.mark.once
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TEXT = PAGES[0].read_text(encoding="utf-8")
ALL = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
PYTHON = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", ALL, flags=re.DOTALL)
BASH = "\n".join(re.findall(r"```bash\n(.*?)```", ALL, flags=re.DOTALL))
SHELL = "\n".join(re.findall(r"```(?:ba)?sh\n(.*?)```", ALL, flags=re.DOTALL))
COMMANDS = [line for line in SHELL.splitlines() if line.startswith("fastvlm ")]
VARIABLES = dict(re.findall(r"^export (KERAS_\w+)=(\w+)", BASH, flags=re.MULTILINE))
QUICK = ("describe", "ask", "evaluate", "presets")
EXPORTS = "from dl_techniques.export import"  # the page: needs the extra `export`


def lines_of(kind: str) -> list[str]:
    """The commands of the `bash` blocks: quick ones, slow ones, or those that write exports."""
    lines = [re.sub(r"\s+#.*", "", line) for line in BASH.splitlines() if line]
    lines = [line for line in lines if not line.startswith("export ")]
    quick = [line for line in lines if line.split()[1] in (*QUICK, "chat")]
    exports = [line for line in lines if line.split()[1] == "export" or "demo_litert" in line]
    found = {"quick": quick, "exports": exports}
    found["slow"] = [line for line in lines if line not in quick + exports]
    return found[kind]


def clone(folder: Path) -> Path:
    """A folder with what the examples read of a clone; what they write stays out of ours."""
    (folder / "home").mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def run(
    command: list[str], folder: Path, programs: Path, variables: dict[str, str] = VARIABLES
) -> subprocess.CompletedProcess[str]:
    """Runs a command as somebody who follows the page."""
    environment = newcomers_variables(folder / "home", programs, variables)
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        input="What is in the picture?\n",
    )


def printed(text: str) -> str:
    """What a program printed, without the progress of `fit`."""
    lines = re.sub(r"\x1b\[[0-9;]*m|\x08", "", text).replace("\r", "\n").splitlines()
    progress = re.compile(r"Epoch \d+/\d+$|\s*\d+/\d+ [━ ]|\s*$")
    return "\n".join(line.rstrip() for line in lines if not progress.match(line))


def test_there_are_examples() -> None:
    assert len(PYTHON) >= 12
    assert {line.split()[1] for line in COMMANDS} >= {"describe", "ask", "chat", "evaluate"}
    assert VARIABLES == {"KERAS_BACKEND": "jax"}
    first = TEXT.index("```python")
    assert TEXT.index("export KERAS_BACKEND=") < TEXT.index("## Install") < first


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command: str) -> None:
    words = shlex.split(command.partition(" < ")[0], comments=True)
    options = build_parser().parse_args(words[1:])
    assert options.command == command.split()[1]


def test_pictures_exist() -> None:
    named = set(re.findall(r"examples/([\w.-]+\.(?:png|jpg))", ALL))
    assert named
    assert not [name for name in named if not (ROOT / "examples" / name).is_file()]


def test_make_targets_exist() -> None:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make ([a-z-]+)", SHELL, flags=re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", rules, flags=re.MULTILINE), target


BLOCKS = pytest.mark.parametrize(
    ("code", "shown"), PYTHON, ids=[f"block {i}" for i in range(len(PYTHON))]
)


@BLOCKS
def test_python_prints_what_the_page_shows(
    code: str,
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process, on this backend; a newcomer's process on the page's is `full`."""
    monkeypatch.chdir(clone(tmp_path))
    exec(compile(code, "page", "exec"), {"__name__": "__main__"})
    assert printed(capsys.readouterr().out) == printed(shown)


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
    assert done.stdout.count("$ fastvlm ask") == 6 and len(done.stderr.splitlines()) == 1
