"""Vision weights of timm and Apple, into our networks and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dl_techniques.checkpoints.vision.layouts import COUNTERS, Layout, recognise
from dl_techniques.checkpoints.vision.numbers import variant_of
from dl_techniques.checkpoints.vision.reading import load, network_map, recognises
from dl_techniques.checkpoints.vision.sources import preprocessing_of
from dl_techniques.checkpoints.vision.tables import fast_vit_rules, relative_paths
from dl_techniques.checkpoints.vision.writing import save_as_timm
from dl_techniques.checkpoints.weight_map import WeightMap
from dl_techniques.models.vision.efficientnet_lite.model import EfficientNetLite
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vision.mobile_one.model import MobileOne

NUM_BATCHES = COUNTERS


def tower_map(encoder: FastVLM, layout: str) -> WeightMap:
    """Names below the tower's prefix -> the encoder's variables, in whatever form it stands.

    Args:
        encoder: a network of the family, usually `include_top=False`.
        layout: "timm" or "apple".

    Raises:
        CheckpointError: the encoder is folded, which no other layout knows.
    """
    return network_map(encoder, layout)


def write(what: FastVLM | MobileOne | EfficientNetLite, folder: Path, **options: Any) -> None:
    """Writes a network as timm does: `save_as_timm`."""
    save_as_timm(what, folder, **options)


__all__ = [
    "COUNTERS",
    "NUM_BATCHES",
    "Layout",
    "fast_vit_rules",
    "load",
    "network_map",
    "preprocessing_of",
    "recognise",
    "recognises",
    "relative_paths",
    "save_as_timm",
    "tower_map",
    "variant_of",
    "write",
]
