"""The examples of the README run as they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dl_techniques.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL))
COMMANDS = [line for line in SHELL.splitlines() if line.startswith("fastvlm ")]
DEMO = ROOT / "dl_techniques" / "presets" / "demo" / "config.json"


def test_there_are_examples() -> None:
    assert len(PYTHON) >= 3
    assert {line.split()[1] for line in COMMANDS} >= {"describe", "ask", "chat", "evaluate"}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command: str) -> None:
    options = build_parser().parse_args(shlex.split(command)[1:])
    assert options.command == command.split()[1]


def test_pictures_exist() -> None:
    named = set(re.findall(r"examples/([\w.-]+\.(?:png|jpg))", TEXT))
    assert named
    assert not [name for name in named if not (ROOT / "examples" / name).is_file()]


def test_make_targets_exist() -> None:
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", SHELL):
        assert re.search(rf"^{target}:", rules, flags=re.MULTILINE), target


@pytest.mark.full
@pytest.mark.parametrize("code", PYTHON, ids=[f"block {i}" for i in range(len(PYTHON))])
def test_python_runs(code: str, tmp_path: Path) -> None:
    if "demo" in code and not DEMO.is_file():
        pytest.skip("the shipped model is not in this checkout")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
