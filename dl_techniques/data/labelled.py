"""Labelled pictures from folders, one folder a class, and batches to train on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dl_techniques.data.geometry import center_crop, resize_shortest_edge
from dl_techniques.data.images import load_image
from dl_techniques.data.preprocessing import Preprocessing, to_input
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

    def inputs(
        self, preprocessing: Preprocessing, include_preprocessing: bool = False
    ) -> np.ndarray:
        """What the network takes: float32[N, H, W, 3]."""
        return to_input(self.pictures, preprocessing, include_preprocessing)


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


def pictures_for(
    network: keras.Model,
    folder: str | Path,
    batch_size: int = 32,
    *,
    seed: int = 0,
    augment: bool = True,
    limit: int | None = None,
) -> tuple[Batches, tuple[np.ndarray, np.ndarray], tuple[str, ...]]:
    """What `fit` needs to train a classifier on a folder of photographs, on any backend.

    Pictures come in the size and in the range of pixels that the network takes.

    Args:
        network: a FastVLM or MobileOne classifier of as many classes as the folder has.
        folder: as `read_labelled`.
        batch_size: pictures a batch. Defaults to 32.
        seed: of order and augmentation. Defaults to 0.
        augment: shift and mirror. Defaults to `True`.
        limit: of each class and split, the first so many.

    Returns:
        Batches to train on; held-out pictures float32[N, H, W, 3] with labels int32[N]; the
        classes' names in the order of the outputs.

    Raises:
        CompressionError: another number of classes, or a folder that cannot be read as classes.
        ImageError: a picture that cannot be read.

    Example:
        >>> train, held_out, names = pictures_for(model, "pets")  # doctest: +SKIP
        >>> model.fit(train, validation_data=held_out, epochs=10)  # doctest: +SKIP
    """
    height, width = network.image_shape[:2]
    if height != width:
        raise CompressionError(
            f"{network.name} takes {height} x {width} pixels; the reader makes square pictures"
        )
    wanted = network.preprocessing
    wanted = wanted if height is None else dataclasses.replace(wanted, size=height)
    train, held_out = read_labelled(Path(folder), wanted, limit)
    if len(train.classes) != network.num_classes:
        raise CompressionError(
            f"{folder} has {len(train.classes)} class folders, {network.name} has "
            f"{network.num_classes} classes; make it with num_classes={len(train.classes)}"
        )
    inside = network.include_preprocessing
    batches = Batches(
        train.pictures,
        train.labels,
        batch_size,
        seed,
        wanted,
        augment,
        include_preprocessing=inside,
    )
    return batches, (held_out.inputs(wanted, inside), held_out.labels), train.classes


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
    return to_input(pictures, preprocessing)


class Batches(keras.utils.PyDataset):
    """Shuffled batches of pictures, float32 as the network takes them, shifted and mirrored.

    A batch is a function of `(seed, epoch, index)`, so a `Stage` that trains on them goes on
    exactly after a kill. As a dataset of `fit` it counts its epochs itself.

    Args:
        pictures: uint8[N, H, W, 3].
        labels: int32[N].
        batch_size: pictures a batch; a smaller last batch is left out.
        seed: of the order and of the augmentation.
        preprocessing: mean and deviation. Defaults to pixels in [0, 1].
        augment: shift and mirror. Defaults to `True`.
        include_preprocessing: of the network: pixels stay 0..255. Defaults to `False`.

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
        include_preprocessing: bool = False,
    ) -> None:
        super().__init__()
        if len(labels) < batch_size:
            raise CompressionError(
                f"{len(labels)} pictures to train on make no batch of {batch_size}; give more, or "
                "lower batch_size"
            )
        self.pictures, self.labels, self.batch_size = pictures, labels, batch_size
        self.preprocessing = Preprocessing() if preprocessing is None else preprocessing
        self.augment, self.include_preprocessing = augment, include_preprocessing
        self.seed, self.epoch = seed, 0

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.labels) // self.batch_size

    @property
    def order(self) -> np.ndarray:
        """int[N], the rows in the order of this epoch."""
        return self.order_of(self.epoch)

    def order_of(self, epoch: int) -> np.ndarray:
        """int[N], the rows in the order of any epoch."""
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.labels))

    def on_epoch_end(self) -> None:
        """A new order."""
        self.epoch += 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures float32[B, H, W, 3] and labels int32[B]."""
        return self.batch(self.epoch, index)

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures float32[B, H, W, 3] and labels int32[B] of any epoch."""
        rows = self.order_of(epoch)[index * self.batch_size : (index + 1) * self.batch_size]
        chosen = self.pictures[rows]
        if self.augment:
            rng = np.random.default_rng((self.seed, epoch, index))
            chosen = _shifted_and_mirrored(chosen, rng)
        inputs = to_input(chosen, self.preprocessing, self.include_preprocessing)
        return inputs, self.labels[rows]


def _shifted_and_mirrored(batch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = batch.shape[1:3]
    margin = min(height, width) // SHIFT
    around = [(0, 0), (margin, margin), (margin, margin), (0, 0)]
    padded = np.pad(batch, around, mode="reflect")
    result = np.empty_like(batch)
    for i, (top, left) in enumerate(rng.integers(0, 2 * margin + 1, (len(batch), 2))):
        result[i] = padded[i, top : top + height, left : left + width]
    mirrored = rng.random(len(batch)) < 0.5
    result[mirrored] = result[mirrored, :, ::-1]
    return result
