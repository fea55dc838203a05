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
        ("--max-new-tokens", "0"),
        ("--max-pixels", "x"),
        ("--no-such-option",),
    ],
)
def test_bad_values_exit_with_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        build_parser().parse_args(["describe", "a.png", *arguments])
    assert exit_info.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
