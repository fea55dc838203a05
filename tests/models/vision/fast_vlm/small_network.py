"""Networks small enough to test with, random through and through."""

from __future__ import annotations

from typing import Any

from dl_techniques.models.vision.fast_vlm.model import FastVLM
from tests.helpers import Array, random_array, randomize

SIZE = 32
CLASSES = 5


def make_network(**options: Any) -> FastVLM:
    """Three stages of one block each, attention with heads of 8 channels in the last."""
    arguments: dict[str, Any] = {
        "num_classes": CLASSES,
        "embed_dims": (8, 16, 32),
        "depths": (1, 1, 1),
        "num_heads": (1, 2, 4),
        "mlp_ratio": 2.0,
        "input_shape": (SIZE, SIZE, 3),
    }
    network = FastVLM(**{**arguments, **options})
    randomize(network)
    return network


def make_smaller_network(**options: Any) -> FastVLM:
    """Two stages: for what compiles a whole step of training."""
    shape = {"embed_dims": (8, 16), "depths": (1, 1), "num_heads": (1, 2)}
    return make_network(**{**shape, **options})


def pictures(batch: int = 2, height: int = SIZE, width: int = SIZE) -> Array:
    """float32[B, H, W, 3]."""
    return random_array(batch, height, width, 3)
