"""The folder as a whole: what it holds, how it compares with Keras, what stays on failure."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl_techniques.errors import ExportError
from dl_techniques.export.litert_vlm import export, export_vlm
from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLM
from tests.export.litert_vlm.small_export import (
    CACHE,
    QUESTION,
    make_half_billion,
    make_model,
    needs_tensorflow,
    save_pictures,
    small_export,
)
from tests.models.vlm.fast_vlm.small_model import WIDTH

SMALL: dict[str, Any] = {"prefill_lengths": (32,), "cache_length": CACHE, "question": QUESTION}


@needs_tensorflow
def test_folder_and_report() -> None:
    small = small_export()
    report = small.report
    assert sorted(report.files) == sorted(p.name for p in small.folder.iterdir())
    assert {"host.py", "manifest.json", "tokenizer.json"} < set(report.files)
    assert "embedder.tflite" not in report.files
    assert report.passed
    assert [check.what for check in report.checks][2:] == ["greedy tokens", "answers"]
    assert all(check.samples >= 3 for check in report.checks[1:])
    rows, logits, tokens, _ = report.checks
    assert rows.relative is not None and rows.relative < 1e-5
    assert logits.relative is not None and logits.relative < 1e-4
    assert tokens.agreement == 1.0
    assert (report.format, report.part, report.precision) == ("litert", "vlm", "float32")


@needs_tensorflow
def test_pictures_matter(tmp_path: Path) -> None:
    """Else the comparison of tokens would say nothing about the way of the pictures."""
    from dl_techniques.hosts.litert import Host

    host = Host(small_export().folder)
    both = []
    for path in save_pictures(tmp_path):
        rows = host.prompt_rows([path], QUESTION)
        caches = host.read_rows(rows[:-1], host.empty_caches())
        both.append(host.next_logits(rows[-1:], len(rows) - 1, caches)[0])
    assert np.abs(both[0] - both[1]).max() > 1e-2 * np.abs(both[0]).max()


@needs_tensorflow
def test_a_wrong_file_is_not_kept(tmp_path: Path, monkeypatch: Any) -> None:
    """Files of one model, compared with another."""
    small, folder = small_export(), tmp_path / "vlm"
    folder.mkdir()
    (folder / "old").write_text("old")
    other = make_model()
    other.backbone.projector.dense_2.bias.assign(np.ones(WIDTH))

    def copied(model: Any, partial: Path, *arguments: Any) -> None:
        shutil.copytree(small.folder, partial, dirs_exist_ok=True)

    monkeypatch.setattr(export, "_write", copied)
    with pytest.raises(ExportError, match="prompt rows"):
        export_vlm(other, folder, pictures=save_pictures(tmp_path, 1), **SMALL)
    assert (folder / "old").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["picture_0.png", "vlm"]


@needs_tensorflow
@pytest.mark.full
@pytest.mark.parametrize("precision", ["float16", "int8", "int8_weights", "int4_weights"])
def test_fewer_bits(tmp_path: Path, precision: str) -> None:
    pictures = save_pictures(tmp_path, 1)
    model = small_export().model
    report = export_vlm(model, tmp_path / "vlm", precision=precision, pictures=pictures, **SMALL)
    assert report.passed
    assert "embedder.tflite" in report.files
    whole = sum(n for name, n in small_export().report.files.items() if "tflite" in name)
    assert sum(n for name, n in report.files.items() if "tflite" in name) < whole


@needs_tensorflow
@pytest.mark.full
@pytest.mark.parametrize("kind", ["qwen3", "llama3", "phi3", "gemma3"])
def test_other_families(tmp_path: Path, kind: str) -> None:
    report = export_vlm(
        make_model(kind), tmp_path / "vlm", pictures=save_pictures(tmp_path, 1), **SMALL
    )
    assert report.passed


@needs_tensorflow
@pytest.mark.full
def test_another_size_of_pictures(tmp_path: Path) -> None:
    report = export_vlm(
        make_model(), tmp_path / "vlm", image_size=48, **{**SMALL, "cache_length": 192}
    )
    assert report.passed
    assert any("drawn" in note for note in report.notes)


@needs_tensorflow
@pytest.mark.full
def test_shipped_model(tmp_path: Path) -> None:
    folder = Path(__file__).resolve().parents[3] / "examples"
    pictures = [folder / name for name in ("scene.png", "dress.jpg", "emoji.png", "word.png")]
    report = export_vlm(FastVLMCausalLM.from_preset("demo"), tmp_path / "vlm", pictures=pictures)
    assert report.passed


@needs_tensorflow
@pytest.mark.full
def test_half_billion_shape(tmp_path: Path) -> None:
    """Takes minutes, and many gigabytes of memory and disk."""
    pictures = save_pictures(tmp_path)
    report = export_vlm(
        make_half_billion(), tmp_path / "vlm", pictures=pictures, prefill_lengths=(32, 128)
    )
    assert report.passed
    assert 1.9e9 < report.files["language_model.tflite"] < 2.1e9


def test_a_model_without_prompts(tmp_path: Path) -> None:
    model = FastVLMCausalLM(make_model().backbone)
    with pytest.raises(ExportError, match="no preprocessor"):
        export_vlm(model, tmp_path / "vlm")
    assert not list(tmp_path.iterdir())
