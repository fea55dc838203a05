"""The examples of README and docs run as they stand there, where the page says they run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from dl_techniques.cli.main import build_parser
from tests.pages import (
    ALL,
    COMMANDS,
    EXPORTS,
    NAMED,
    PYTHON,
    ROOT,
    SHELL,
    TEXT,
    VARIABLES,
    clone,
    printed,
)

pytestmark = pytest.mark.once
# Exporting starts a process of another backend.
IN_PROCESS = pytest.mark.parametrize(
    ("code", "shown"),
    [
        pytest.param(code, shown, id=name, marks=[pytest.mark.full] * (EXPORTS in code))
        for name, code, shown in NAMED
    ],
)


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


@IN_PROCESS
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
