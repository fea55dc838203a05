"""export: the command line around `export_model`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl_techniques import export as export_package
from dl_techniques.cli import main
from dl_techniques.errors import ExportError
from dl_techniques.export import exporter
from dl_techniques.export.report import ExportReport, compare_arrays


def run(capsys: pytest.CaptureFixture[str], *arguments: Any, status: int = 0) -> tuple[str, str]:
    capsys.readouterr()
    got = main.main(["export", *(str(a) for a in arguments)])
    out, err = capsys.readouterr()
    assert got == status, err
    if status == 2:
        lines = [line for line in err.splitlines() if not line.startswith("writing and checking")]
        assert len(lines) == 1 and lines[0].startswith("error: ")
    return out, err


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What `export_model` was asked; it answers with a report of its own."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def instead(*arguments: Any, **options: Any) -> ExportReport:
        calls.append((arguments, options))
        scores = np.arange(12.0)[None]
        checks = (
            compare_arrays("logits", scores, scores, 1e-4),
            compare_arrays("maps", scores, scores + 0.01, 0.1, classes=False, measure="rms"),
        )
        return ExportReport(
            "onnx",
            "classifier",
            "float32",
            "m.onnx",
            {"m.onnx": 1_500_000},
            "ort 1",
            checks,
            ("N",),
        )

    monkeypatch.setattr(exporter, "export_model", instead)
    monkeypatch.setattr(export_package, "export_model", instead, raising=False)
    return calls


def test_text(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(capsys, "demo", "--format", "onnx", "--output", "m.onnx")
    assert out.splitlines() == [
        "wrote    m.onnx (1.50 MB)",
        "what     classifier, float32, onnx",
        "run by   ort 1",
        "checked  logits, 1 samples: largest difference 0, relative 0, relative RMS 0, "
        "PSNR inf dB, agreement 100.0%, in the top 5 100.0% (relative at most 0.0001)",
        "checked  maps, 1 samples: largest difference 0.01, relative 0.00091, relative RMS 0.0029, "
        "PSNR 60.8 dB (relative RMS at most 0.1)",
        "note     N",
    ]
    assert "writing and checking m.onnx" in err


def test_json_is_json(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    out, err = run(capsys, "demo", "--format", "onnx", "--output", "m.onnx", "--json")
    report = json.loads(out, parse_constant=refuse)
    assert report["checks"][0]["psnr"] is None and report["files"] == {"m.onnx": 1_500_000}
    assert err == ""


def test_options_arrive(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    words = "demo --format litert --output m --part vlm --image-size 64 --precision int8 --force"
    more = "--dynamic-batch --pictures p --calibration c --gate 0.5 --prefill-lengths 16 32"
    more += " --block-size 32 --skip head neck"
    run(capsys, *words.split(), *more.split(), "--cache-length", 256, "--question", "Why?")
    ((arguments, options),) = asked
    assert arguments == (
        "demo", Path("m"), "litert", "vlm", 64, "int8", True, Path("p"), Path("c"), True, 0.5,
    )  # fmt: skip
    assert options == {
        "prefill_lengths": (16, 32), "cache_length": 256, "question": "Why?", "block_size": 32,
        "skip": ["head", "neck"],
    }  # fmt: skip


def test_bad_input_is_one_line_and_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    target = tmp_path / "m.onnx"
    to_onnx = ("demo", "--format", "onnx", "--output", target)
    assert "it can float32" in run(capsys, *to_onnx, "--precision", "int8", status=2)[1]
    assert "no part 'vlm'" in run(capsys, *to_onnx, "--part", "vlm", status=2)[1]
    assert "no pictures" in run(capsys, *to_onnx, "--pictures", tmp_path / "empty", status=2)[1]
    assert "no option 'cache_length'" in run(capsys, *to_onnx, "--cache-length", 9, status=2)[1]
    static = ("demo", "--format", "litert", "--output", tmp_path / "m.tflite", "--part", "encoder")
    words = run(capsys, *static, "--precision", "int8_static", status=2)[1]
    assert "needs a folder of calibration pictures" in words
    target.write_text("old")
    assert "exists already" in run(capsys, *to_onnx, status=2)[1]
    assert target.read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def test_a_failed_gate_ends_with_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise ExportError("m.onnx does not compute what Keras computes")

    monkeypatch.setattr(export_package, "export_model", fail, raising=False)
    _, err = run(capsys, "demo", "--format", "onnx", "--output", "m.onnx", status=2)
    assert "does not compute" in err


def test_an_interrupt_ends_with_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export_package, "export_model", interrupt, raising=False)
    run(capsys, "demo", "--format", "onnx", "--output", "m.onnx", status=main.INTERRUPTED)
