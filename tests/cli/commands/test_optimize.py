"""fastvlm optimize: options, text and JSON, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dl_techniques.cli import main
from dl_techniques.compression.optimization import optimizing
from dl_techniques.compression.optimization.classifier_files import Measured
from dl_techniques.compression.optimization.optimizing import OptimizeReport
from dl_techniques.compression.optimization.steps import StepReport

REPORT = OptimizeReport(
    "tiny",
    "a.tflite",
    {"prune": None},
    80,
    Measured(3_370_000, 841_354, 0.55, 0.7726),
    Measured(990_000, 841_354, 0.19, 0.7715),
    (StepReport("prune", 500_000, 0.76, 2, 12.4),),
    ("built-in operators only",),
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []

    def optimize(*arguments: Any, **options: Any) -> OptimizeReport:
        calls.append((arguments, options))
        options["say"]("reading pets")
        return REPORT

    monkeypatch.setattr(optimizing, "optimize", optimize)
    return calls


def run(*arguments: Any) -> int:
    return main.main(["optimize", *(str(a) for a in arguments)])


def recipe_file(folder: Path, text: str = "quantize: {precision: int8}") -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_report_is_a_table(
    asked: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_file(tmp_path)
    assert (
        run("tiny", "--recipe", recipe, "--data", "pets", "--output", "a.tflite", "--limit", 9) == 0
    )
    out, err = capsys.readouterr()
    assert err == "reading pets ...\n"
    lines = out.splitlines()
    assert lines[0].split() == ["size", "parameters", "latency", "accuracy"]
    assert lines[1].split() == ["before", "3.37", "MB", "841,354", "0.55", "ms", "77.26", "%"]
    assert lines[2].split() == ["after", "0.99", "MB", "841,354", "0.19", "ms", "77.15", "%"]
    assert "step     prune: 2 epochs, 12 s, 500,000 parameters, 76.00 % in Keras" in lines
    assert "wrote    a.tflite, 0.29 of the float32 size" in lines
    (source, output, chosen, data), options = asked[0]
    assert (source, output, data) == ("tiny", Path("a.tflite"), Path("pets"))
    assert chosen.precision == "int8" and options["limit"] == 9 and not options["overwrite"]


def test_json_is_the_report(
    asked: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("tiny", "--recipe", recipe_file(tmp_path), "--output", "a.tflite", "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["after"]["accuracy"] == 0.7715 and told["steps"][0]["name"] == "prune"


def test_a_size_chooses_the_recipe(
    asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dl_techniques.compression import Recipe
    from dl_techniques.compression.optimization import target

    seen: dict[str, Any] = {}

    def for_size(source: str, megabytes: float, **options: Any) -> Recipe:
        seen.update(options, megabytes=megabytes)
        return Recipe()

    monkeypatch.setattr(target, "recipe_for_size", for_size)
    assert run("demo", "--target-mb", "2.5", "--output", "a.litertlm") == 0
    assert seen["megabytes"] == 2.5 and not seen["trainable"]
    assert seen["export"].format == "litertlm"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tiny", "--output", "a"), "one of the arguments --recipe --target-mb is required"),
        (("tiny", "--output", "a", "--target-mb", "0"), "expected a number above 0, got '0'"),
        (("tiny", "--output", "a", "--target-mb", "nan"), "expected a number above 0, got 'nan'"),
        (("tiny", "--output", "a", "--target-mb", "1", "--recipe", "b"), "not allowed with"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    err = capsys.readouterr().err
    assert caught.value.code == main.BAD_INPUT and words in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [("prun: {}", "did you mean 'prune'?"), ("quantize: {precision: int7}", "one of float32")],
)
def test_bad_recipes_are_one_line(
    tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_file(tmp_path, text)
    assert run("tiny", "--recipe", recipe, "--output", "a.tflite") == main.BAD_INPUT
    err = capsys.readouterr().err
    assert err.startswith("error: ") and words in err and err.count("\n") == 1


def test_a_missing_preset_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("none.keras", "--recipe", recipe_file(tmp_path), "--output", tmp_path / "a.tflite")
    assert run(*arguments) == main.BAD_INPUT
    assert "none.keras" in capsys.readouterr().err
