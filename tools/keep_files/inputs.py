"""The inputs that all kept files share, and which of them a file takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
INPUTS_FILE = "inputs.npz"
SIDE = 32
MAP = (8, 8, 8)
IMAGE_TOKENS = 16
QUESTION = "why is the cat on the mat?"


def make_inputs() -> dict[str, Array]:
    """Pictures, a feature map, and the arrays of two prompts, one with a picture.

    Returns:
        `pictures` float32[2, 32, 32, 3], `map` float32[2, 8, 8, 8], `photo` uint8[24, 40, 3], and
        `images`, `vision_indices`, `token_ids`, `padding_mask` as `FastVLMBackbone` takes them.
    """
    rng = np.random.default_rng(27)
    length = 24
    mask = np.ones((2, length), "int32")
    mask[1, 19:] = 0
    places = np.full((2, IMAGE_TOKENS), length, "int32")
    places[0] = 1 + np.arange(IMAGE_TOKENS)
    return {
        "pictures": rng.uniform(0, 1, (2, SIDE, SIDE, 3)).astype("float32"),
        "map": rng.uniform(-1, 1, (2, *MAP)).astype("float32"),
        "photo": rng.integers(0, 255, (24, 40, 3), dtype=np.uint8),
        "images": rng.uniform(0, 1, (2, 1, SIDE, SIDE, 3)).astype("float32"),
        "vision_indices": places,
        "token_ids": rng.integers(5, 250, (2, length)).astype("int32"),
        "padding_mask": mask,
    }


def read_inputs(folder: Path) -> dict[str, Array]:
    """The kept inputs.

    Raises:
        FileNotFoundError: no file was kept there yet.
    """
    with np.load(folder / INPUTS_FILE) as file:
        return dict(file)


def taken_by(model: Any, inputs: dict[str, Array]) -> Any:
    """What of the inputs a model takes: a dict, pictures or a feature map."""
    backbone = getattr(model, "backbone", model)
    if hasattr(backbone, "text_backbone"):
        names = ("images", "vision_indices", "token_ids", "padding_mask")
        taken = {name: inputs[name] for name in names}
        rows = int(backbone.num_image_tokens)
        return {**taken, "vision_indices": inputs["vision_indices"][:, :rows]}
    network = getattr(model, "student", model)
    return inputs["pictures"] if network.input_shape[-1] == 3 else inputs["map"]
