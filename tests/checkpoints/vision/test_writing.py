"""Networks written as timm's folders, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dl_techniques import FastVLM
from dl_techniques.checkpoints.tensor_files import open_tensors
from dl_techniques.checkpoints.vision import save_as_timm
from dl_techniques.errors import CheckpointError, VariantError
from tests.checkpoints.vision.small_variants import add_small_variants, small_network
from tests.helpers import numbers, values


@pytest.fixture(autouse=True)
def small_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests of this file know the small variants."""
    add_small_variants(monkeypatch)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("include_top", [False, True])
def test_there_and_back(fused: bool, include_top: bool, tmp_path: Path) -> None:
    network = small_network(fused, include_top=include_top, preprocessing={"size": 80})
    network.export_to_transformers(tmp_path / "timm")
    assert {p.name for p in (tmp_path / "timm").iterdir()} == {"config.json", "model.safetensors"}
    config = json.loads((tmp_path / "timm" / "config.json").read_text("utf-8"))
    assert config["architecture"] == "fastvit_small"
    assert config["num_classes"] == (5 if include_top else 0)
    assert config.get("model_args") == ({"inference_mode": True} if fused else None)
    assert config["pretrained_cfg"]["input_size"] == [3, 80, 80]
    loaded = FastVLM.from_preset(tmp_path / "timm")
    assert loaded.form_state() == network.form_state() and loaded.include_top == include_top
    assert loaded.preprocessing == network.preprocessing
    for one, other in zip(values(loaded), values(network), strict=True):
        np.testing.assert_array_equal(one, other)


def test_counters_of_batch_norms_are_written(tmp_path: Path) -> None:
    save_as_timm(small_network(), tmp_path / "timm")
    with open_tensors(tmp_path / "timm") as store:
        counters = [n for n in store if n.endswith("num_batches_tracked")]
        norms = [n for n in store if n.endswith("running_mean")]
        assert len(counters) == len(norms) > 20
        assert store[counters[0]].shape == () and store[counters[0]].dtype == np.int64


def test_bfloat16_stays(tmp_path: Path) -> None:
    network = small_network(dtype="bfloat16")
    save_as_timm(network, tmp_path / "timm")
    with open_tensors(tmp_path / "timm") as store:
        assert str(store["stages.0.blocks.0.mlp.fc1.weight"].dtype) == "bfloat16"
    loaded = FastVLM.from_preset(tmp_path / "timm", dtype="bfloat16")
    for one, other in zip(loaded.weights, network.weights, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(numbers(one), numbers(other))


def test_networks_that_timm_has_not(tmp_path: Path) -> None:
    with pytest.raises(VariantError, match="timm has no network like 'nano'"):
        FastVLM.from_variant("nano").export_to_transformers(tmp_path / "timm")
    other = FastVLM(embed_dims=(8, 16), depths=(1, 1), num_heads=(1, 2))
    with pytest.raises(VariantError, match="layers of no variant"):
        other.export_to_transformers(tmp_path / "timm")
    folded = small_network()
    folded.reparameterize(fold=True)
    with pytest.raises(CheckpointError, match="folded"):
        folded.export_to_transformers(tmp_path / "timm")
    assert not list(tmp_path.iterdir())
