"""CIFAR-10 from a folder of JPEG files, as arrays, and batches with the usual augmentation.

The folder holds `train/CLASS/*.jpg` and `test/CLASS/*.jpg` (32 x 32). The public original is
`keras.datasets.cifar10`.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from PIL import Image

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
PADDING = 4


def load(folder: Path, split: str, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8[N, 32, 32, 3] and labels int32[N] of a split.

    Args:
        folder: with `train` and `test`.
        split: "train" or "test".
        limit: takes so many pictures of each class only.

    Raises:
        FileNotFoundError: a class has no pictures.
    """
    pictures, labels = [], []
    for label, name in enumerate(CLASSES):
        files = sorted((folder / split / name).glob("*.jpg"))[:limit]
        if not files:
            raise FileNotFoundError(f"no pictures in {folder / split / name}")
        pictures += [np.asarray(Image.open(file).convert("RGB")) for file in files]
        labels += [label] * len(files)
    return np.stack(pictures), np.asarray(labels, "int32")


class Batches(keras.utils.PyDataset):
    """Shuffled batches of shifted and mirrored pictures, float32 in [0, 1].

    Args:
        pictures: uint8[N, H, W, 3].
        labels: int32[N].
        batch_size: pictures a batch; a smaller last batch is left out.
        seed: of the order and of the augmentation.
    """

    def __init__(
        self, pictures: np.ndarray, labels: np.ndarray, batch_size: int = 128, seed: int = 0
    ) -> None:
        super().__init__()
        self.pictures, self.labels, self.batch_size = pictures, labels, batch_size
        self.rng = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.labels) // self.batch_size

    def on_epoch_end(self) -> None:
        """A new order."""
        self.order = self.rng.permutation(len(self.labels))

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures float32[B, H, W, 3] and labels int32[B]."""
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self._augment(self.pictures[rows]), self.labels[rows]

    def _augment(self, batch: np.ndarray) -> np.ndarray:
        height, width = batch.shape[1:3]
        around = [(0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)]
        padded = np.pad(batch, around, mode="reflect")
        result = np.empty_like(batch)
        for i, (top, left) in enumerate(self.rng.integers(0, 2 * PADDING + 1, (len(batch), 2))):
            result[i] = padded[i, top : top + height, left : left + width]
        mirrored = self.rng.random(len(batch)) < 0.5
        result[mirrored] = result[mirrored, :, ::-1]
        return result.astype("float32") / 255.0


def as_floats(pictures: np.ndarray) -> np.ndarray:
    """Float32 in [0, 1], as the network takes it."""
    return pictures.astype("float32") / 255.0
