"""The table of the CIFAR-10 runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl_techniques import FastVLM
from recipes.cifar10 import baseline, data, results, table
from recipes.cifar10.results import Result

pytestmark = pytest.mark.once


def make(name: str, **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "name": name, "step": "quantize", "file": f"{name}.tflite", "bytes": 4_000_000,
        "accuracy": 0.8, "milliseconds": 2.0, "parameters": 1000, "pictures": 50, "epochs": 0,
        "seconds": 0.0, "command": "python -m recipes.cifar10.quantize", "date": "2026-01-01T10:00",
        "machine": {"processor": "P", "cores": 2},
    }  # fmt: skip
    return Result(**{**fields, **changes})


def test_rows_are_compared_with_float32(tmp_path: Path) -> None:
    small = make("tiny-int8", bytes=1_000_000, accuracy=0.7875, milliseconds=0.5)
    pruned = make("pruned", step="prune", epochs=4, command="python -m recipes.cifar10.prune")
    for result in (pruned, make("tiny-float32"), small):
        results.write(tmp_path, result)
    text = table.markdown(results.read_all(tmp_path))
    assert "| tiny-int8 | 1.00 | 0.25 | 78.75 % | -1.25 | 0.50 | 4.00x | - |" in text
    assert text.index("tiny-int8") < text.index("| pruned | 4.00 | 1.00 | 80.00 % | +0.00")
    assert "50 test pictures" in text and "P, 2 cores, 2026-01-01" in text
    assert text.count("python -m") == 2


def test_the_gain_of_distillation_is_told() -> None:
    alone = make("student-float32", step="distil", accuracy=0.7, parameters=250, epochs=8)
    taught = make("distilled-float32", step="distil", accuracy=0.725, parameters=250, epochs=8)
    told = table.gain([make("tiny-float32"), alone, taught])
    assert told is not None and "0.25 of the teacher" in told and "+2.50 points" in told
    assert table.gain([make("tiny-float32"), alone]) is None


def test_missing_results_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no results in"):
        results.read_all(tmp_path)
    with pytest.raises(SystemExit, match="no result tiny-float32"):
        table.markdown([make("other")])


def test_commands_name_folders_by_what_they_hold() -> None:
    said = results.command_line(
        ["/a/prune.py", "--data", "/x", "--work", "/x/work", "--model", "/x/work/m.keras"]
    )
    assert said == ("python -m recipes.cifar10.prune --data CIFAR --work WORK --model WORK/m.keras")


def write_pictures(folder: Path, split: str, count: int) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in data.CLASSES:
        (folder / split / name).mkdir(parents=True)
        for index in range(count):
            picture = rng.integers(0, 255, (32, 32, 3), dtype="uint8")
            Image.fromarray(picture).save(folder / split / name / f"{index}.png")


@pytest.mark.slow_on_jax
def test_the_baseline_goes_on_where_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path, "train", 2)
    write_pictures(tmp_path, "test", 1)
    sizes = {"embed_dims": (8, 8, 8), "depths": (1, 1, 1), "num_heads": (1, 1, 1)}
    monkeypatch.setattr(baseline, "OF_STUDENT", sizes)

    def run(name: str) -> FastVLM:
        words = ["--data", tmp_path, "--variant", "student", "--epochs", 2, "--batch-size", 8]
        arguments = [*words, "--output", tmp_path / f"{name}.keras"]
        monkeypatch.setattr(sys, "argv", ["baseline", *map(str, arguments)])
        baseline.main()
        return FastVLM.from_preset(tmp_path / f"{name}.keras")

    whole = run("whole")
    batch = data.Batches.batch

    def killed(self: data.Batches, epoch: int, index: int) -> Any:
        if (epoch, index) == (1, 1):
            raise KeyboardInterrupt
        return batch(self, epoch, index)

    monkeypatch.setattr(data.Batches, "batch", killed)
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    monkeypatch.setattr(data.Batches, "batch", batch)
    resumed = run("killed")
    for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_pictures_are_read_in_the_order_of_the_classes(tmp_path: Path) -> None:
    from PIL import Image

    for value, name in enumerate(data.CLASSES):
        folder = tmp_path / "test" / name
        folder.mkdir(parents=True)
        for index in range(2):
            Image.fromarray(np.full((32, 32, 3), 20 * value, "uint8")).save(folder / f"{index}.png")
    pictures, labels = data.load(tmp_path, "test", 1)
    assert pictures.shape == (10, 32, 32, 3)
    np.testing.assert_array_equal(pictures[:, 0, 0, 0], 20 * labels)
    assert data.as_floats(pictures).max() == pytest.approx(180 / 255)
