"""Two variants small enough to load in every test, and their weights under others' names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from dl_techniques.checkpoints.vision import network_map, numbers
from dl_techniques.checkpoints.weight_map import export_weights
from dl_techniques.models.vision.fast_vlm import config as fast_vlm_config
from dl_techniques.models.vision.fast_vlm import model as fast_vlm_model
from dl_techniques.models.vision.fast_vlm.config import FastVLMConfig
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from tests.helpers import Array, randomize

SMALL = "fastvit_small"
OTHER = "fastvit_other"
CONFIGS = {
    SMALL: FastVLMConfig(
        embed_dims=(16, 32, 64),
        depths=(1, 2, 1),
        mlp_ratio=2.0,
        se_stages=(2,),
        tail_expansion=2,
        num_classes=5,
        image_size=48,
        mean=(0.4, 0.5, 0.6),
        crop_fraction=0.75,
    ),
    OTHER: FastVLMConfig(
        embed_dims=(16, 32), depths=(1, 1), mixers=("repmixer",) * 2, tail_expansion=2
    ),
}


def add_small_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the package know both beside its own."""
    everything = {**fast_vlm_config.load_variants(), **CONFIGS}
    monkeypatch.setattr(fast_vlm_config, "load_variants", lambda: everything)
    monkeypatch.setattr(fast_vlm_model, "load_variants", lambda: everything)
    monkeypatch.setattr(numbers, "fast_vit_variants", lambda: everything)
    monkeypatch.setattr(FastVLM, "MODEL_VARIANTS", everything)


def small_network(fused: bool = False, **options: Any) -> FastVLM:
    """`fastvit_small` with random weights."""
    network = FastVLM.from_variant(SMALL, **options)
    randomize(network)
    if fused:
        network.reparameterize()
    return network


def arrays_of(network: FastVLM, words: str = "timm") -> dict[str, Array]:
    """Its weights under timm's or Apple's names."""
    return dict(export_weights(network_map(network, words)))


def write(arrays: dict[str, Array], folder: Path, prefix: str = "") -> Path:
    """A safetensors file."""
    path = folder / "weights.safetensors"
    save_file({prefix + name: array for name, array in arrays.items()}, path)
    return path
