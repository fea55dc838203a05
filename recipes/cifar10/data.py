"""CIFAR-10 from a folder of pictures, as arrays, and batches with the usual augmentation.

The folder holds `train/CLASS/*.jpg` and `test/CLASS/*.jpg` (32 x 32). The public original is
`keras.datasets.cifar10`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dl_techniques.data.labelled import Batches, class_files

__all__ = ["CLASSES", "Batches", "as_floats", "load"]
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def load(folder: Path, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8[N, 32, 32, 3] and labels int32[N] of a split.

    Args:
        folder: with `train` and `test`.
        split: "train" or "test".
        limit: takes so many pictures of each class only.

    Raises:
        CompressionError: a class has no pictures.
    """
    found = class_files(folder / split)
    pictures, labels = [], []
    for label, name in enumerate(CLASSES):
        files = found[name][:limit]
        pictures += [np.asarray(Image.open(file).convert("RGB")) for file in files]
        labels += [label] * len(files)
    return np.stack(pictures), np.asarray(labels, "int32")


def as_floats(pictures: np.ndarray) -> np.ndarray:
    """Float32 in [0, 1], as the network takes it."""
    return pictures.astype("float32") / 255.0
