"""`fastvlm benchmark`: what it measures of an encoder, and how it is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dl_techniques.cli import main
from dl_techniques.cli.commands import benchmark
from dl_techniques.cli.commands.benchmark_table import to_text


@pytest.mark.slow_on_jax
def test_a_network_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    plot = tmp_path / "growth.png"
    arguments = ["benchmark", "--network", "nano", "--resolutions", "16", "32", "--repeats", "1"]
    told: list[int] = []
    monkeypatch.setattr(benchmark, "keep_freed_memory", lambda: told.append(1) or True)
    arguments += ["--keep-freed-memory"]
    assert main.main([*arguments, "--json", "--plot", str(plot)]) == 0
    report = json.loads(capsys.readouterr().out)
    encoder = report["encoder"]
    assert encoder["network"] == "fast_vlm_nano" and encoder["precision"] == "float32"
    assert len(encoder["times"]) == 6 and all(c["seconds"] > 0 for c in encoder["times"])
    assert [g["form"] for g in encoder["growth"]] == ["branched", "fused", "folded"]
    assert report["machine"]["cores"] >= 1 and "threads" in report["machine"]
    assert told == [1] and report["machine"]["freed_memory"] == "kept"
    assert "warm" not in report
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network", "nanu"], "'nanu'"),
        (["--dtype", "bfloat16"], "--dtype is for --network"),
        (["--plot", "growth.png"], "add --resolutions"),
        (["--network", "nano", "--plot", "growth.txt"], "growth.txt"),
    ],
)
def test_bad_options_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["benchmark", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def report(ratio: float | None) -> dict[str, Any]:
    """A report with known figures."""
    phases = ("preprocess", "encode", "project", "prefill", "first_decode", "first_token")
    times = {name: 0.001 * i for i, name in enumerate(phases, 1)}
    turn = {"first_token": 0.25, "seconds_per_token": None, "tokens": 1}
    cells = [
        {"form": f, "resolution": s, "batch_size": 2, "seconds": 0.001 * s * i, "fastest": 0.0}
        for s in (16, 32)
        for i, f in enumerate(("branched", "folded"), 1)
    ]
    return {
        "warm": {
            "times": {**times, "tokens_per_second": 12.5, "tokens": 7},
            "conversation": {"second_over_first": ratio, "turns": [turn]},
            "peak_megabytes": 640.0,
            "model": {"fused": True},
        },
        "encoder": {
            "network": "small",
            "precision": "bfloat16",
            "times": cells,
            "growth": [
                {"form": f, "batch_size": 2, "exponent": 0.5} for f in ("branched", "folded")
            ],
            "peak_megabytes": 700.0,
        },
        "machine": {"backend": "jax", "threads": "library default"},
    }


def line(text: str, start: str) -> list[str]:
    """The figures of the one line that starts so."""
    (found,) = [row for row in text.splitlines() if row.strip().startswith(start)]
    return found.strip().removeprefix(start).split()


def test_tables() -> None:
    text = to_text(report(0.125))
    assert line(text, "warm: project") == ["3.0", "ms"]
    assert line(text, "warm: decoding") == ["12.5", "tokens/s"]
    assert line(text, "question 1: first text") == ["250.0", "ms"]
    assert line(text, "question 1: each further token") == ["-"]
    assert line(text, "second question over first") == ["12.5", "%"]
    assert line(text, "16 px") == ["2", "16.0", "ms", "32.0", "ms"]
    assert line(text, "32 px") == ["2", "32.0", "ms", "64.0", "ms"]
    assert line(text, "growth: time ~ pixels^") == ["2", "0.500", "0.500"]
    assert "precision bfloat16" in text and "threads library default" in text
    assert "no text to the first" in to_text(report(None))
