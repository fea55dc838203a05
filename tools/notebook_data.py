"""Small labelled sets of pictures for the notebooks: a folder or archive of classes, or shapes.

Example:
    >>> pictures = shape_pictures(8, "train", size=32)
    >>> pictures.images.shape, pictures.images.dtype
    ((8, 32, 32, 3), dtype('uint8'))
"""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from recipes.demo.draw.clothing import padded
from recipes.demo.draw.scenes import SceneMaker
from recipes.demo.draw.shapes import SCENE_SHAPES

SUFFIXES = (".jpg", ".jpeg", ".png")
TEST_FOLDERS = ("test", "validation", "val")


@dataclass(frozen=True)
class Pictures:
    """A labelled split.

    Attributes:
        images: uint8[N, S, S, 3].
        labels: int64[N].
        names: of the classes.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]


def shape_pictures(count: int, split: str, size: int = 64, seed: int = 0) -> Pictures:
    """Draws pictures of one coloured shape each; needs no download.

    Args:
        count: how many.
        split: "train" or "test"; the test split has only combinations of colour and shape that
            the other never has.
        size: side in pixels.
        seed: another number, other pictures.
    """
    maker = SceneMaker(None, size)
    rng = np.random.default_rng((seed, split == "test"))
    images, labels = [], []
    while len(images) < count:
        scene = maker.make(rng, split)
        if len(scene.things) == 1:
            images.append(scene.image)
            labels.append(SCENE_SHAPES.index(scene.things[0].name))
    return Pictures(np.stack(images), np.asarray(labels), SCENE_SHAPES)


def labelled_pictures(
    source: Path, split: str, size: int = 64, limit: int | None = None, seed: int = 0
) -> Pictures:
    """Reads `train/CLASS/*.jpg` or `test/CLASS/*.jpg` from a folder, a zip or a tar.

    Args:
        source: CIFAR-10 as JPEG files, a clothing set, or your own pictures in such folders.
        split: "train" or "test"; the latter's folder may also be called "validation" or "val".
        size: pictures are padded to a square with black and resized to this side.
        limit: most pictures, drawn at random; None for all.
        seed: of that draw.

    Raises:
        FileNotFoundError: nothing there, or no pictures of that split in it.
    """
    tops = TEST_FOLDERS if split == "test" else ("train",)
    with _Files(Path(source)) as files:
        chosen = sorted(name for name in files.names if _class_of(name, tops))
        if not chosen:
            raise FileNotFoundError(f"{source} holds no {'|'.join(tops)}/CLASS/*.jpg")
        names = tuple(sorted({_class_of(name, tops) for name in chosen}))
        order = np.random.default_rng(seed).permutation(len(chosen))[:limit]
        kept = sorted(chosen[i] for i in order)
        images = [padded(Image.open(io.BytesIO(files.read(n))).convert("RGB"), size) for n in kept]
    labels = [names.index(_class_of(name, tops)) for name in kept]
    return Pictures(np.stack(images), np.asarray(labels), names)


def _class_of(name: str, tops: tuple[str, ...]) -> str:
    """The class of `.../train/CLASS/file.jpg`; "" for any other file."""
    parts = name.split("/")
    if len(parts) < 3 or parts[-3] not in tops or not parts[-1].lower().endswith(SUFFIXES):
        return ""
    return parts[-2]


class _Files:
    """The files of a folder, a zip or a tar: names, and one's bytes."""

    def __init__(self, source: Path) -> None:
        self.names: list[str] = []
        self.read: Callable[[str], bytes]
        self._archive: zipfile.ZipFile | tarfile.TarFile | None = None
        if source.is_dir():
            self.names = list(_relative(source))
            self.read = lambda name: (source / name).read_bytes()
        elif zipfile.is_zipfile(source):
            zipped = self._archive = zipfile.ZipFile(source)
            self.names, self.read = zipped.namelist(), zipped.read
        else:
            tarred = self._archive = tarfile.open(source)
            members = {m.name: m for m in tarred.getmembers() if m.isfile()}
            self.names = list(members)
            self.read = lambda name: tarred.extractfile(members[name]).read()  # type: ignore[union-attr]

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *error: object) -> None:
        if self._archive is not None:
            self._archive.close()


def _relative(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*"):
        if file.is_file():
            yield file.relative_to(folder).as_posix()
