"""The folder of photographs: four archives, read in the order of their file names.

    photos_caltech101.zip   caltech/{train,validation}/CLASS/*.jpg, caltech/background/*.jpg
    photos_grocery.zip      grocery/{train,validation}/KIND/CLASS/FINE/*.jpg
    clothing.tar            {train,validation}/CLASS/*.jpg
    photos_coco_ccby.zip    coco_ccby/photos/*.jpg, coco_ccby/annotations.json

Example:
    >>> for photo in read_photos("photos", "caltech", "train"):  # doctest: +SKIP
    ...     print(photo.label, photo.load().size)
"""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

ARCHIVES = {
    "caltech": "photos_caltech101.zip",
    "background": "photos_caltech101.zip",
    "grocery": "photos_grocery.zip",
    "clothing": "clothing.tar",
    "coco": "photos_coco_ccby.zip",
}
SPLITS = ("train", "validation")
ANNOTATIONS = "coco_ccby/annotations.json"


@dataclass(frozen=True)
class Photo:
    """One photograph.

    Attributes:
        set: one of `ARCHIVES`.
        split: "train" or "validation".
        label: its class as the archive spells it; "" where it has none.
        name: its name in the archive, which no other photograph of the set has.
        data: the JPEG file.
    """

    set: str
    split: str
    label: str
    name: str
    data: bytes = field(repr=False)

    def load(self) -> Image.Image:
        """The RGB picture at its own size."""
        return Image.open(io.BytesIO(self.data)).convert("RGB")


@dataclass(frozen=True)
class Annotation:
    """What people wrote about one of the CC-BY photographs.

    Attributes:
        captions: five sentences.
        objects: the names of the COCO objects in it, once each, in alphabetical order.
        url: where it comes from, for its credit.
    """

    captions: tuple[str, ...]
    objects: tuple[str, ...]
    url: str


def archive_of(folder: Path | str, set_name: str) -> Path:
    """The archive of a set.

    Raises:
        ValueError: no set is called so.
        FileNotFoundError: the folder lacks the archive.
    """
    if set_name not in ARCHIVES:
        raise ValueError(f"photographs {set_name!r} are unknown, expected one of {[*ARCHIVES]}")
    path = Path(folder) / ARCHIVES[set_name]
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path.name} in {folder}: the {set_name} photographs are in it; put it there, or "
            "give the folder that holds it"
        )
    return path


def read_photos(folder: Path | str, set_name: str, split: str) -> Iterator[Photo]:
    """The photographs of one split, in the order of their file names.

    The background pictures have no split of their own: of every two the first is for training. All
    CC-BY photographs are for validation.

    Args:
        folder: holds the archives.
        set_name: one of `ARCHIVES`.
        split: "train" or "validation".

    Raises:
        ValueError: an unknown set or split, or there is no such photograph in the archive.
        FileNotFoundError: the folder lacks the archive.
    """
    path = archive_of(folder, set_name)
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown, expected one of {SPLITS}")
    with _opened(path) as archive:
        names = _names(archive, set_name, split)
        if not names:
            raise ValueError(f"{path} holds no photographs for {set_name}, {split}")
        for name in names:
            yield Photo(set_name, split, label_of(set_name, name), name, archive.read(name))


def label_of(set_name: str, name: str) -> str:
    """The class that an archive's file name tells.

    Example:
        >>> label_of("grocery", "grocery/train/Fruit/Apple/Golden-Delicious/a.jpg")
        'Apple'
        >>> label_of("background", "caltech/background/image_0005.jpg")
        ''
    """
    if set_name in ("background", "coco"):
        return ""
    return name.split("/")[{"caltech": 2, "grocery": 3, "clothing": 1}[set_name]]


def read_annotations(folder: Path | str) -> dict[str, Annotation]:
    """The name of each CC-BY photograph in its archive -> what people wrote about it.

    Raises:
        FileNotFoundError: the folder lacks the archive.
    """
    with zipfile.ZipFile(archive_of(folder, "coco")) as archive:
        entries = json.loads(archive.read(ANNOTATIONS))
    return {f"coco_ccby/photos/{entry['file']}": _annotation(entry) for entry in entries}


def _annotation(entry: dict[str, Any]) -> Annotation:
    objects = tuple(sorted({name for name, *_ in entry["objects"]}))
    return Annotation(tuple(entry["captions"]), objects, entry["flickr_url"])


def _names(archive: zipfile.ZipFile | _Tar, set_name: str, split: str) -> list[str]:
    top = {
        "caltech": f"caltech/{split}/",
        "background": "caltech/background/",
        "grocery": f"grocery/{split}/",
        "clothing": f"{split}/",
        "coco": "coco_ccby/photos/",
    }[set_name]
    names = sorted(n for n in archive.namelist() if n.startswith(top) and n.endswith(".jpg"))
    if set_name == "background":
        return names[SPLITS.index(split) :: 2]
    return [] if (set_name, split) == ("coco", "train") else names


def _opened(path: Path) -> zipfile.ZipFile | _Tar:
    return zipfile.ZipFile(path) if path.suffix == ".zip" else _Tar(path)


class _Tar:
    """A tar file that is asked as a `ZipFile` is."""

    def __init__(self, path: Path) -> None:
        self._file = tarfile.open(path)

    def __enter__(self) -> _Tar:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def namelist(self) -> list[str]:
        return [member.name for member in self._file.getmembers() if member.isfile()]

    def read(self, name: str) -> bytes:
        file = self._file.extractfile(name)
        assert file is not None  # `namelist` has files only
        return file.read()
