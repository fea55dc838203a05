"""Plans: what a folder is and takes, without reading a weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dl_techniques.checkpoints.fast_vlm import estimate
from dl_techniques.checkpoints.fast_vlm.plan import RUNTIME_BYTES
from dl_techniques.checkpoints.tensor_files import SafetensorsStore
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vlm.fast_vlm.network.variants import FastVLMVariant
from tests.checkpoints.fast_vlm import folders
from tools import measure_loading


def test_a_folder_is_described_without_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = folders.make_backbone(folders.PLAIN_TOWER)
    folder = folders.apple_folder(tmp_path / "model", backbone)

    def refuse(self: Any, name: Any) -> None:
        raise AssertionError(f"read {name}")

    monkeypatch.setattr(SafetensorsStore, "read", refuse)
    plan = estimate(folder)
    numbers = backbone.count_params()
    assert plan.layout == "apple" and plan.parameters == numbers
    assert plan.tensors == len(backbone.weights) + plan.unread
    assert plan.unread == 1 + sum(w.path.endswith("moving_variance") for w in backbone.weights)
    assert plan.weight_bytes == {"bfloat16": 2 * numbers, "float32": 4 * numbers}
    assert plan.peak_bytes["float32"] >= plan.weight_bytes["float32"] + RUNTIME_BYTES
    assert "2 layers and width 16" in "\n".join(plan.lines())


def test_what_cannot_be_loaded_has_no_plan(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no FastVLM folder"):
        estimate(tmp_path)
    folder = folders.apple_folder(tmp_path / "model", folders.make_backbone(folders.PLAIN_TOWER))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 25}))
    with pytest.raises(CheckpointError, match="6 mis-shaped"):
        estimate(folder)


def test_the_7b_shape_is_named_and_added_up() -> None:
    """From names and shapes alone, as the files of the published model have them."""
    shapes = measure_loading.shapes_of(FastVLMVariant.named("fastvlm_7b"))
    total = sum(_product(shape) for shape in shapes.values())
    assert total == 7_762_192_992 + 35_712  # and the running statistics of batch norms
    assert shapes["model.mm_projector.0.weight"] == (3584, 3072)
    assert shapes["lm_head.weight"] == shapes["model.embed_tokens.weight"] == (152064, 3584)
    tower = "model.vision_tower.vision_tower.model."
    assert shapes[f"{tower}network.9.reparam_conv.weight"] == (1536, 1, 7, 7)
    assert shapes[f"{tower}network.3.proj.0.lkb_reparam.weight"] == (384, 1, 7, 7)
    assert shapes[f"{tower}conv_exp.se.reduce.weight"] == (192, 3072, 1, 1)
    counters = sum(name.endswith("running_var") for name in shapes)
    vision = [name for name in shapes if name.startswith(tower)]
    assert len(vision) + counters == 628


def _product(shape: Any) -> Any:
    total = 1
    for side in shape:
        total *= side
    return total


@pytest.mark.full
def test_generated_folders_load(tmp_path: Path) -> None:
    folder = tmp_path / "generated"
    numbers = {"num_layers": 1, "hidden_dim": 28, "intermediate_dim": 8, "vocabulary_size": 64}
    measure_loading.generate("fastvlm_0.5b", folder, **numbers, shard_bytes=100_000_000)
    plan = estimate(folder)
    assert len(list(folder.glob("*.safetensors"))) == 3 and plan.unread == 0
    assert plan.stored_bytes == plan.weight_bytes["bfloat16"]


@pytest.mark.full
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_loading_takes_at_most_a_quarter_more_than_the_files(tmp_path: Path, backend: str) -> None:
    measure_loading.generate("fastvlm_0.5b", tmp_path)
    figures = measure_loading.measure_in_process(tmp_path, "bfloat16", backend)
    print(figures)
    assert figures["ratio"] <= 1.25
    assert figures["peak_bytes"] <= figures["planned_peak_bytes"]
