"""The command as a whole: help, version, and what becomes of errors. No model is loaded here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dl_techniques import __version__
from dl_techniques.cli import main
from dl_techniques.cli.commands import describe

pytestmark = pytest.mark.once


def fail_with(error: BaseException) -> Any:
    def run(options: object) -> int:
        raise error

    return run


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main.main(["--version"])
    assert leave.value.code == 0
    assert capsys.readouterr().out == f"fastvlm {__version__}\n"


def test_no_arguments_print_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("usage: fastvlm") and err == ""


COMMANDS = [module.__name__.rpartition(".")[2] for module in main.COMMANDS]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str) -> None:
    (commands,) = [a for a in main.build_parser()._actions if a.dest == "command"]
    actions = commands.choices[command]._actions
    assert [a.dest for a in actions if not a.help] == []
    (preset,) = [a for a in actions if a.dest in ("preset", "source")] or [None]
    assert preset is None or "hf://organisation/name" in preset.help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main.main([command, "--help"])
    assert leave.value.code == 0
    assert f"fastvlm {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["descibe"], ["describe"], ["ask", "a.png"]])
def test_bad_arguments_are_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as leave:
        main.main(arguments)
    assert leave.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def bad_pictures(folder: Path) -> dict[str, list[str]]:
    """Arguments with a bad picture, by what is wrong with it."""
    (folder / "text.jpg").write_text("this is not a picture")
    Image.effect_noise((64, 64), 50).convert("RGB").save(folder / "whole.jpg")
    (folder / "half.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:600])
    (folder / "empty.png").touch()
    Image.new("L", (100, 100)).save(folder / "large.png")
    return {
        "missing": ["missing.png"],
        "text": ["text.jpg"],
        "truncated": ["half.jpg"],
        "empty": ["empty.png"],
        "folder": ["."],
        "stdin twice": ["-", "-"],
        "bomb": ["large.png", "--max-pixels", "9999"],
    }


@pytest.mark.parametrize(
    "case", ["missing", "text", "truncated", "empty", "folder", "stdin twice", "bomb"]
)
def test_bad_pictures_are_one_line(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = bad_pictures(tmp_path)[case]
    monkeypatch.setattr(
        describe.answer_all.__globals__["session"],
        "open_answerer",
        fail_with(AssertionError("the model was loaded before the pictures were read")),
    )
    assert main.main(["describe", *arguments]) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("error: ") and out == ""


def test_all_bad_pictures_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    bad_pictures(tmp_path)
    assert main.main(["describe", "missing.png", "half.jpg"]) == 2
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert "missing.png" in first and "half.jpg" in second and out == ""


@pytest.mark.parametrize(
    "command",
    [["ask", "a.png"], ["benchmark", "--question"], ["export", "demo", "--question"]],
)
def test_a_question_that_is_no_text(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for question, words in (("caf\udce9?", "not UTF-8 at character 4 of 5"), (" ", "is empty")):
        with pytest.raises(SystemExit) as leave:
            main.main([*command, question])
        (line,) = capsys.readouterr().err.splitlines()
        assert leave.value.code == 2 and words in line


def test_presets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["presets"]) == 0
    out, err = capsys.readouterr()
    assert re.match(r"demo  12\.5 M parameters, \d+\.\d MB", out) and err == ""
    assert "hf://organisation/name" in out
    assert main.main(["presets", "--json"]) == 0
    (preset,) = json.loads(capsys.readouterr().out)
    assert preset["name"] == "demo" and Path(preset["folder"], "config.json").is_file()


def test_an_empty_question(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["ask", "missing.png", "  "])
    assert "the question is empty" in capsys.readouterr().err


def test_an_interrupt_is_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(describe, "run", fail_with(KeyboardInterrupt()))
    assert main.main(["describe", "a.png"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(describe, "run", fail_with(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        main.main(["describe", "a.png"])


def test_debug_shows_where_an_error_comes_from() -> None:
    from dl_techniques.errors import ImageError

    with pytest.raises(ImageError):
        main.main(["--debug", "describe", "missing.png"])


def test_python_m_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dl_techniques", "describe", "no such picture.png"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "no such picture.png" in line
    assert done.stdout == ""
