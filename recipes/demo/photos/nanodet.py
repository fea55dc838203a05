"""Which of COCO's 80 objects are on a photograph, as the detector NanoDet-m says.

    python -m recipes.demo.photos.nanodet --photos PHOTOS --out nanodet.json

It is a teacher: what it says is trained and measured against, it is not shipped. Its files are
`photo_teachers/nanodet_m.{param,bin}` in the folder of photographs (Apache-2.0, RangiLyu/nanodet);
they run in the PyPI package `ncnn`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dl_techniques.data.files import atomic_writer
from recipes.demo.photos.names import class_names
from recipes.demo.photos.readers import ARCHIVES, SPLITS, Photo, read_photos

FILES = ("photo_teachers/nanodet_m.param", "photo_teachers/nanodet_m.bin")
SIDE, STEP = 320, 32
BLUE_GREEN_RED = ((103.53, 116.28, 123.675), (1 / 57.375, 1 / 57.12, 1 / 58.395))
HEADS = {8: ("792", "795"), 16: ("814", "817"), 32: ("836", "839")}
BINS = 8
OVERLAP = 0.5
KEPT = 0.1
SURE = 0.45

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detection:
    """An object, as COCO calls it, its score and its box: left, top, width, height as parts of the
    picture."""

    name: str
    score: float
    box: Box


@dataclass(frozen=True)
class Seen:
    """What the detector says of one photograph.

    Attributes:
        objects: all with a score of at least `KEPT`, the surest first.
    """

    objects: tuple[Detection, ...]

    @property
    def sure(self) -> tuple[str, ...]:
        """The objects that are there, once each, in everyday names."""
        return self._named(SURE)

    @property
    def doubtful(self) -> tuple[str, ...]:
        """The objects that must not be denied, in everyday names."""
        return self._named(KEPT)

    @property
    def person(self) -> bool | None:
        """Whether a person is there; None where the detector is not sure."""
        best = max((d.score for d in self.objects if d.name == "person"), default=0.0)
        return True if best >= SURE else False if best < KEPT else None

    def _named(self, score: float) -> tuple[str, ...]:
        names = (class_names()["coco", d.name] for d in self.objects if d.score >= score)
        return tuple(dict.fromkeys(names))


class Detector:
    """NanoDet-m.

    Args:
        folder: the folder of photographs, with `photo_teachers/`.

    Raises:
        FileNotFoundError: the folder lacks the network.
        ModuleNotFoundError: ncnn is not installed.
    """

    def __init__(self, folder: Path | str) -> None:
        paths = [Path(folder) / file for file in FILES]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"no {path.name} in {path.parent}: the detector is there")
        self._ncnn = _ncnn()
        self._network = self._ncnn.Net()
        self._network.opt.num_threads = 1
        self._network.load_param(str(paths[0]))
        self._network.load_model(str(paths[1]))
        self.names = [label for set_name, label in class_names() if set_name == "coco"]

    def __call__(self, picture: Image.Image) -> Seen:
        """Finds the objects of an RGB picture."""
        scale = SIDE / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        boxes, scores = self._candidates(picture.resize((width, height), Image.Resampling.BILINEAR))
        found = []
        for label in np.flatnonzero((scores >= KEPT).any(0)):
            for i in best_boxes(boxes, scores[:, label]):
                score = float(scores[i, label])
                box = as_parts(boxes[i], width, height)
                found.append(Detection(self.names[label], round(score, 4), box))
        return Seen(tuple(sorted(found, key=lambda d: (-d.score, d.name))))

    def _candidates(self, picture: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        """float[N, 4] corners in pixels and float[N, 80] scores."""
        wide, high = (-(-side // STEP) * STEP for side in picture.size)
        left, top = (wide - picture.width) // 2, (high - picture.height) // 2
        padded = Image.new("RGB", (wide, high))
        padded.paste(picture, (left, top))
        pixels = np.ascontiguousarray(np.asarray(padded))
        mat = self._ncnn.Mat.from_pixels(pixels, self._ncnn.Mat.PixelType.PIXEL_RGB2BGR, wide, high)
        mat.substract_mean_normalize(*(list(values) for values in BLUE_GREEN_RED))
        boxes, scores = [], []
        with self._network.create_extractor() as extractor:
            extractor.input("input.1", mat)
            for stride, (score_name, box_name) in HEADS.items():
                score = np.array(extractor.extract(score_name)[1])
                sides = np.array(extractor.extract(box_name)[1])
                boxes.append(corners(sides, stride, wide // stride) - [left, top, left, top])
                scores.append(score)
        return np.concatenate(boxes), np.concatenate(scores)


def corners(sides: np.ndarray, stride: int, columns: int) -> np.ndarray:
    """Boxes from the distances to their sides, each told as a distribution over `BINS` steps.

    Args:
        sides: float[N, 4 * BINS], of N cells row by row.
        stride: pixels a cell.
        columns: cells a row.

    Returns:
        float[N, 4] left, top, right, bottom in pixels.
    """
    told = sides.reshape(-1, 4, BINS)
    weights = np.exp(told - told.max(-1, keepdims=True))
    far = (weights / weights.sum(-1, keepdims=True)) @ np.arange(BINS) * stride
    cells = np.arange(len(told))
    x, y = (cells % columns + 0.5) * stride, (cells // columns + 0.5) * stride
    return np.stack([x - far[:, 0], y - far[:, 1], x + far[:, 2], y + far[:, 3]], 1)


def best_boxes(boxes: np.ndarray, scores: np.ndarray) -> list[int]:
    """The surest of every group of boxes that overlap (non-maximum suppression)."""
    left = np.flatnonzero(scores >= KEPT)
    left = left[np.argsort(-scores[left], kind="stable")]
    kept: list[int] = []
    while len(left):
        kept.append(int(left[0]))
        left = left[1:][overlap(boxes[left[0]], boxes[left[1:]]) < OVERLAP]
    return kept


def overlap(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The area that a box (float[4]) has in common with others (float[N, 4]) over that of both.

    Example:
        >>> overlap(np.array([0, 0, 2, 1]), np.array([[1, 0, 3, 1]])).round(2).tolist()
        [0.33]
    """
    low, high = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:], others[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), 1)
    both = np.prod(one[2:] - one[:2]) + np.prod(others[:, 2:] - others[:, :2], 1) - common
    return common / np.maximum(both, 1e-9)


def as_parts(corner: np.ndarray, width: int, height: int) -> Box:
    """Corners in pixels as left, top, width and height in parts of the picture, cut at its sides.

    Example:
        >>> as_parts(np.array([-5, 0, 50, 100]), 100, 200)
        (0.0, 0.0, 0.5, 0.5)
    """
    left, right = (float(np.clip(corner[i] / width, 0, 1)) for i in (0, 2))
    top, bottom = (float(np.clip(corner[i] / height, 0, 1)) for i in (1, 3))
    return round(left, 4), round(top, 4), round(right - left, 4), round(bottom - top, 4)


def _ncnn() -> Any:
    try:
        import ncnn
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the detector needs ncnn, which is not installed: pip install ncnn", name="ncnn"
        ) from error
    return ncnn


def label(detector: Detector, photos: Iterable[Photo]) -> dict[str, Seen]:
    """The name of each photograph in its archive -> what the detector sees on it."""
    return {photo.name: detector(photo.load()) for photo in photos}


def write_labels(path: Path | str, labels: Mapping[str, Seen]) -> None:
    """Writes labels as JSON: {name: {"objects": [[name, score, [x, y, w, h]], ...], "sure": [...],
    "person": true, false or null}}, complete or not at all."""
    entries = {
        name: {
            "objects": [[d.name, d.score, d.box] for d in seen.objects],
            "sure": seen.sure,
            "person": seen.person,
        }
        for name, seen in labels.items()
    }
    with atomic_writer(Path(path)) as file:
        json.dump(entries, file)


def read_labels(path: Path | str) -> dict[str, Seen]:
    """Reads what `write_labels` wrote.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no labels of the detector at {path}: python -m recipes.demo.photos.nanodet --photos "
            f"PHOTOS --out {path}"
        )
    entries: dict[str, Mapping[str, Sequence[Any]]] = json.loads(path.read_text(encoding="utf-8"))
    return {name: Seen(tuple(_detections(entry["objects"]))) for name, entry in entries.items()}


def _detections(told: Iterable[Sequence[Any]]) -> Iterator[Detection]:
    for name, score, box in told:
        left, top, width, height = box
        yield Detection(name, score, (left, top, width, height))


def main(arguments: list[str] | None = None) -> None:
    """Runs the command: labels all photographs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="the folder of photographs")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    options = parser.parse_args(arguments)
    detector = Detector(options.photos)
    labels: dict[str, Seen] = {}
    for name in ARCHIVES:
        for split in SPLITS:
            if (name, split) != ("coco", "train"):
                labels |= label(detector, read_photos(options.photos, name, split))
                print(f"{name} {split}: {len(labels)} photographs so far", flush=True)
    write_labels(options.out, labels)


if __name__ == "__main__":
    main()
