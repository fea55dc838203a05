"""Options and the sampling that they ask for."""

from __future__ import annotations

import pytest

from dl_techniques.cli.main import build_parser
from dl_techniques.cli.options import Sampling, sampling_of

pytestmark = pytest.mark.once


def sampling(*arguments: str) -> Sampling:
    return sampling_of(build_parser().parse_args(["describe", "a.png", *arguments]))


def test_greedy_by_default() -> None:
    assert sampling() == Sampling() and sampling().greedy
    assert sampling("--temperature", "0").greedy


def test_a_limit_on_the_draw_means_a_draw() -> None:
    assert sampling("--top-k", "5") == Sampling(1.0, top_k=5)
    assert sampling("--top-p", "0.9", "--seed", "3") == Sampling(1.0, top_p=0.9, seed=3)
    assert sampling("--temperature", "0.7").temperature == 0.7


@pytest.mark.parametrize(
    "arguments",
    [
        ("--temperature", "-1"),
        ("--temperature", "nan"),
        ("--temperature", "inf"),
        ("--top-k", "0"),
        ("--top-p", "0"),
        ("--top-p", "1.5"),
        ("--top-p", "nan"),
        ("--seed", "-5"),
        ("--seed", "4294967296"),
        ("--seed", "1.5"),
        ("--max-new-tokens", "0"),
        ("--min-new-tokens", "-1"),
        ("--repetition-penalty", "0"),
        ("--no-repeat-ngram-size", "x"),
        ("--presence-penalty", "nan"),
        ("--frequency-penalty", "inf"),
        ("--stop", ""),
        ("--max-pixels", "x"),
        ("--no-such-option",),
    ],
)
def test_bad_values_exit_with_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["describe", "a.png"], ["ask", "a.png", "What?"], ["chat"]):
        with pytest.raises(SystemExit) as exit_info:
            build_parser().parse_args([*command, *arguments])
        assert exit_info.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and arguments[0] in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "demo", "--format", "onnx", "--output", "a", "--gate", "nan"),
        ("export", "demo", "--format", "onnx", "--output", "a", "--gate", "-1"),
        ("export", "demo", "--format", "onnx", "--output", "a", "--image-size", "0"),
        ("optimize", "demo", "--output", "a", "--target-mb", "nan"),
        ("evaluate", "--data", ".", "--batch-size", "0"),
        ("benchmark", "--repeats", "0"),
        ("benchmark", "--resolutions", "64", "-1"),
    ],
)
def test_ranges_of_the_other_commands(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        build_parser().parse_args(arguments)
    assert exit_info.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"argument {arguments[-2] if arguments[-2] != '64' else '--resolutions'}" in line
    assert f"got '{arguments[-1]}'" in line
