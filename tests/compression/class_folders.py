"""Folders of pictures that a network can learn to tell apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (20, 40, 220), "green": (30, 200, 60), "red": (220, 30, 40)}


def write_classes(folder: Path, count: int = 10, side: int = 36, seed: int = 0) -> Path:
    """One class a colour, noisy: `folder/CLASS/000.png` ..."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        place = folder / name
        place.mkdir(parents=True)
        for index in range(count):
            pixels = np.clip(np.asarray(colour) + rng.normal(0, 25, (side, side, 3)), 0, 255)
            Image.fromarray(pixels.astype("uint8")).save(place / f"{index:03}.png")
    return folder
