"""Recipes from YAML: what is read, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dl_techniques.compression.optimization.recipe import Recipe
from dl_techniques.compression.optimization.recipe_parts import Distil, Prune
from dl_techniques.errors import CompressionError

pytestmark = pytest.mark.once

WHOLE = """
prune: {fraction: 0.25, targets: [hidden], steps: 2, epochs: 3}
distil: {temperature: 2, features: true}
quantization_aware: {skip: [head]}
quantize: {precision: int8_static}
export: {image_size: 64}
training: {batch_size: 8, learning_rate: 0.01, augment: false}
"""


def test_a_whole_recipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(WHOLE, encoding="utf-8")
    recipe = Recipe.from_file(path)
    assert recipe.prune == Prune(0.25, ("hidden",), steps=2, epochs=3)
    assert recipe.distil == Distil(temperature=2, features=True)
    assert recipe.quantization_aware is not None and recipe.quantization_aware.skip == ("head",)
    assert recipe.trains and recipe.precision == "int8_static"
    assert recipe.export.image_size == 64 and not recipe.training.augment


@pytest.mark.parametrize(
    ("values", "precision", "trains"),
    [
        ({}, "float32", False),
        ({"quantize": {}}, "int8", False),
        ({"quantize": {"precision": "float16"}, "prune": None}, "float16", False),
        ({"quantization_aware": {}}, "int8_static", True),
        ({"prune": {}}, "float32", True),
        ({"distil": {"student": "nano"}}, "float32", True),
    ],
)
def test_steps_may_be_left_out(values: dict[str, Any], precision: str, trains: bool) -> None:
    recipe = Recipe.from_dict(values)
    assert (recipe.precision, recipe.trains) == (precision, trains)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prun": {}}, "unknown key 'prun'; did you mean 'prune'?"),
        (
            {"prune": {"fracton": 0.5}},
            "recipe: prune: unknown key 'fracton'; did you mean 'fraction'",
        ),
        ({"export": {"zzz": 1}}, "known: format, image_size"),
        ({"prune": 0.5}, "recipe: prune must be a mapping, got 0.5"),
        ({"prune": {"fraction": "half"}}, "prune.fraction must be float, got 'half'"),
        ({"prune": {"steps": True}}, "prune.steps must be int, got True"),
        (
            {"prune": {"targets": "hidden"}},
            r"prune.targets must be tuple\[str, ...\], got 'hidden'",
        ),
        ({"prune": {"epochs": 0}}, "epochs must be at least 1"),
        ({"training": {"batch_size": 0}}, "training.batch_size must be at least 1"),
        ({"training": {"learning_rate": -1}}, "training.learning_rate must be above 0"),
        ({"quantize": {"precision": "int7"}}, "quantize.precision must be one of float32"),
        ({"quantize": {"block_size": 48}}, "quantize.block_size must be one of"),
        ({"export": {"format": "onnx"}}, "export.format must be one of litert, litertlm"),
        ({"quantization_aware": {}, "quantize": {"precision": "int8"}}, "int8_static after"),
        ({"distil": {}}, "distil.student must be the name of a variant"),
        ({"prune": {}, "distil": {"student": "nano"}}, "left out where the student is the pruned"),
    ],
)
def test_wrong_recipes_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(CompressionError, match=words) as caught:
        Recipe.from_dict(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [("- a\n- b", "must hold a mapping"), ("prune: {", "is no YAML"), ("x: 1", "unknown key 'x'")],
)
def test_wrong_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CompressionError, match=words) as caught:
        Recipe.from_file(path)
    assert "\n" not in str(caught.value) and "recipe.yaml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="none.yaml cannot be read: No such file"):
        Recipe.from_file(tmp_path / "none.yaml")
