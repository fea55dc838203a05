"""Labelled pictures from folders, one folder a class, and batches to train on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dl_techniques.data.geometry import center_crop, resize_shortest_edge
from dl_techniques.data.images import load_image
from dl_techniques.data.preprocessing import Preprocessing
from dl_techniques.errors import CompressionError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
HELD_OUT = ("test", "val", "validation")
EVERY = 5
"""Without a folder of held-out pictures, every fifth picture of a class is held out."""
SHIFT = 8
"""Pictures are shifted by up to an eighth of their side."""


@dataclass(frozen=True)
class Labelled:
    """Pictures of one split, in memory.

    Attributes:
        pictures: uint8[N, H, W, 3].
        labels: int32[N], places in `classes`.
        classes: names of the folders, sorted.
    """

    pictures: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def inputs(self, preprocessing: Preprocessing) -> np.ndarray:
        """What the network takes: float32[N, H, W, 3]."""
        return normalized(self.pictures, preprocessing)


def read_labelled(
    folder: Path,
    preprocessing: Preprocessing,
    limit: int | None = None,
    on_picture: Callable[[], None] | None = None,
) -> tuple[Labelled, Labelled]:
    """Pictures to train on, and held-out ones to measure on.

    Args:
        folder: with `train/CLASS/*` and `test/CLASS/*` (or `val`, `validation`), or `CLASS/*`, of
            which every fifth picture is held out.
        preprocessing: of the network; its size is that of the pictures.
        limit: of each class and split, the first so many.
        on_picture: called after each.

    Raises:
        CompressionError: no such folder, no classes, a class without pictures, or splits whose
            classes differ.
        ImageError: a picture that cannot be read.
    """
    train, held_out = _split(folder)
    if train.keys() != held_out.keys():
        raise CompressionError(
            f"{folder}: the classes to train on and to measure on differ: "
            f"{', '.join(sorted(train.keys() ^ held_out.keys()))}"
        )
    read = [_read(files, preprocessing, limit, on_picture) for files in (train, held_out)]
    return read[0], read[1]


def _split(folder: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Class -> files, to train on and to measure on."""
    if not folder.is_dir():
        raise CompressionError(f"{folder} is no folder; give one with a folder for each class")
    held_out = [folder / name for name in HELD_OUT if (folder / name).is_dir()]
    if (folder / "train").is_dir() and held_out:
        return class_files(folder / "train"), class_files(held_out[0])
    files = class_files(folder)
    for name, paths in files.items():
        if len(paths) < EVERY:
            raise CompressionError(
                f"{folder / name} holds {len(paths)} pictures; {EVERY} are needed to hold one out"
            )
    train = {n: [p for i, p in enumerate(f) if i % EVERY] for n, f in files.items()}
    return train, {name: paths[::EVERY] for name, paths in files.items()}


def class_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each class, both sorted.

    Raises:
        CompressionError: no classes, or one without pictures.
    """
    found = {
        place.name: sorted(p for p in place.iterdir() if p.suffix.lower() in ENDINGS)
        for place in sorted(folder.iterdir())
        if place.is_dir() and not place.name.startswith(".")
    }
    empty = [name for name, paths in found.items() if not paths]
    if not found or empty:
        what = f"the class folder {empty[0]!r} is" if empty else "there are no class folders, it is"
        raise CompressionError(
            f"{folder}: {what} without pictures; expected CLASS/*.png or {', '.join(ENDINGS[1:])}"
        )
    return found


def _read(
    files: dict[str, list[Path]],
    preprocessing: Preprocessing,
    limit: int | None,
    on_picture: Callable[[], None] | None,
) -> Labelled:
    side: int = preprocessing.size
    filter_name: Any = preprocessing.interpolation
    shorter = preprocessing.resized_side
    pictures, labels = [], []
    for label, paths in enumerate(files.values()):
        for path in paths[:limit]:
            picture = resize_shortest_edge(load_image(path), shorter, filter_name)
            pictures.append(center_crop(picture, side, side))
            labels.append(label)
            if on_picture is not None:
                on_picture()
    return Labelled(np.stack(pictures), np.asarray(labels, "int32"), tuple(files))


def normalized(pictures: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """uint8[N, H, W, 3] as the network takes it: float32, mean and deviation applied."""
    mean = np.asarray(preprocessing.mean, "float32")
    std = np.asarray(preprocessing.std, "float32")
    scaled: np.ndarray = (pictures.astype("float32") / 255.0 - mean) / std
    return scaled


class Batches(keras.utils.PyDataset):
    """Shuffled batches of pictures, float32 as the network takes them, shifted and mirrored.

    Args:
        pictures: uint8[N, H, W, 3].
        labels: int32[N].
        batch_size: pictures a batch; a smaller last batch is left out.
        seed: of the order and of the augmentation.
        preprocessing: mean and deviation. Defaults to pixels in [0, 1].
        augment: shift and mirror. Defaults to `True`.

    Raises:
        CompressionError: fewer pictures than one batch.
    """

    def __init__(
        self,
        pictures: np.ndarray,
        labels: np.ndarray,
        batch_size: int = 128,
        seed: int = 0,
        preprocessing: Preprocessing | None = None,
        augment: bool = True,
    ) -> None:
        super().__init__()
        if len(labels) < batch_size:
            raise CompressionError(
                f"{len(labels)} pictures to train on make no batch of {batch_size}; give more, or "
                "lower batch_size"
            )
        self.pictures, self.labels, self.batch_size = pictures, labels, batch_size
        self.preprocessing = Preprocessing() if preprocessing is None else preprocessing
        self.augment = augment
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
        chosen = self.pictures[rows]
        if self.augment:
            chosen = self._shifted_and_mirrored(chosen)
        return normalized(chosen, self.preprocessing), self.labels[rows]

    def _shifted_and_mirrored(self, batch: np.ndarray) -> np.ndarray:
        height, width = batch.shape[1:3]
        margin = min(height, width) // SHIFT
        around = [(0, 0), (margin, margin), (margin, margin), (0, 0)]
        padded = np.pad(batch, around, mode="reflect")
        result = np.empty_like(batch)
        for i, (top, left) in enumerate(self.rng.integers(0, 2 * margin + 1, (len(batch), 2))):
            result[i] = padded[i, top : top + height, left : left + width]
        mirrored = self.rng.random(len(batch)) < 0.5
        result[mirrored] = result[mirrored, :, ::-1]
        return result
