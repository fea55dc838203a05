"""Real photos of clothes in ten classes, from a tar of `train/CLASS/*.jpg`, `validation/...`."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from recipes.demo.draw.language import article, pick, sentence
from recipes.demo.draw.scene_questions import CAPTION_QUESTIONS

FOLDERS = (
    "dress", "hat", "longsleeve", "outwear", "pants",
    "shirt", "shoes", "shorts", "skirt", "t-shirt",
)  # fmt: skip
# what a person would say
CLASSES = (
    "dress", "hat", "long sleeve", "jacket", "pants",
    "shirt", "shoes", "shorts", "skirt", "t-shirt",
)  # fmt: skip
_PLURAL = ("pants", "shoes", "shorts")
CACHE_SIDE = 144
NAME_QUESTIONS = (
    "what clothing is this?",
    "what kind of clothing is this?",
    "what is shown in the photo?",
    "which piece of clothing is it?",
)


@dataclass(frozen=True)
class Clothing:
    """One split: uint8[N, 144, 144, 3] photos in the top left corner, int[N, 2] their (width,
    height) and int[N] classes."""

    images: np.ndarray
    sizes: np.ndarray
    classes: np.ndarray


def read_photos(tar: Path, split: str) -> Iterator[tuple[int, Image.Image]]:
    """Yields (class, RGB picture) in the order of the file names.

    Args:
        tar: the tar file.
        split: "train", or "test" for the validation folder.

    Raises:
        ValueError: when the split is empty.
    """
    top = "train" if split == "train" else "validation"
    with tarfile.open(tar) as archive:
        members = [m for m in archive.getmembers() if m.isfile() and m.name.endswith(".jpg")]
        chosen = sorted((m for m in members if m.name.startswith(f"{top}/")), key=lambda m: m.name)
        if not chosen:
            raise ValueError(f"{tar} holds no {top}/CLASS/*.jpg")
        for member in chosen:
            handle = archive.extractfile(member)
            assert handle is not None
            picture = Image.open(io.BytesIO(handle.read())).convert("RGB")
            yield FOLDERS.index(member.name.split("/")[1]), picture


def load_clothing(work: Path, tar: Path | None, split: str) -> Clothing:
    """Returns one split, decoded once and cached in the work folder.

    Raises:
        FileNotFoundError: when neither cache nor tar is there.
    """
    path = Path(work) / "cache" / f"clothing_{split}_{CACHE_SIDE}.npz"
    if not path.is_file():
        if tar is None or not Path(tar).is_file():
            raise FileNotFoundError(f"no clothing photos at {tar}: give the tar by --clothing")
        _build(Path(tar), split, path)
    with np.load(path) as data:
        return Clothing(data["images"], data["sizes"], data["classes"])


def _build(tar: Path, split: str, path: Path) -> None:
    photos, sizes, classes = [], [], []
    for label, picture in read_photos(tar, split):
        picture.thumbnail((CACHE_SIDE, CACHE_SIDE), Image.Resampling.LANCZOS)
        square = np.zeros((CACHE_SIDE, CACHE_SIDE, 3), np.uint8)
        square[: picture.height, : picture.width] = np.asarray(picture)
        photos.append(square)
        sizes.append(picture.size)
        classes.append(label)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, images=np.stack(photos), sizes=np.array(sizes), classes=np.array(classes))
    partial.replace(path)


def padded(picture: Image.Image, size: int) -> np.ndarray:
    """Returns a whole photo, centred on black: uint8[size, size, 3]."""
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    square = Image.new("RGB", (size, size))
    small = picture.resize((width, height), Image.Resampling.BICUBIC)
    square.paste(small, ((size - width) // 2, (size - height) // 2))
    return np.asarray(square)


def _photo(photos: Clothing, number: int) -> Image.Image:
    width, height = (int(side) for side in photos.sizes[number])
    return Image.fromarray(np.ascontiguousarray(photos.images[number, :height, :width]))


def draw_photo(
    rng: np.random.Generator, photos: Clothing, number: int, size: int, train: bool
) -> np.ndarray:
    """Returns uint8[size, size, 3]: whole on black for tests, changed for training."""
    picture = _photo(photos, number)
    if not train:
        return padded(picture, size)
    if rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.4:
        turn = Image.Resampling.BILINEAR
        picture = picture.rotate(rng.uniform(-15, 15), turn, fillcolor=_mean(picture))
    picture = _crop(rng, picture)
    if rng.random() < 0.65:
        array = padded(picture, size)
    else:
        array = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))
    return _light(rng, array)


def _mean(picture: Image.Image) -> tuple[int, ...]:
    corner = np.asarray(picture)[[0, 0, -1, -1], [0, -1, 0, -1]]
    return tuple(int(value) for value in corner.mean(0))


def _crop(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    """Cuts a little off the sides, more now and then."""
    keep = rng.uniform(0.6, 1.0) if rng.random() < 0.6 else rng.uniform(0.9, 1.0)
    ratio = rng.uniform(0.85, 1.18)
    width = min(picture.width, round(picture.width * np.sqrt(keep * ratio)))
    height = min(picture.height, round(picture.height * np.sqrt(keep / ratio)))
    left = int(rng.integers(picture.width - width + 1))
    top = int(rng.integers(picture.height - height + 1))
    return picture.crop((left, top, left + width, top + height))


def _light(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    """Changes brightness, contrast and tint; hides a patch now and then."""
    image = array.astype(np.float32)
    padding = array.max(-1, keepdims=True) == 0
    gain = rng.uniform(0.75, 1.25) * rng.uniform(0.92, 1.08, 3)
    image = (image - 128) * gain.astype(np.float32) + np.float32(128 + rng.uniform(-25, 25))
    if rng.random() < 0.15:
        image = np.broadcast_to(image.mean(-1, keepdims=True), image.shape).copy()
    image = np.where(padding, 0, image)
    if rng.random() < 0.3:
        size = image.shape[0]
        height, width = (rng.uniform(0.1, 0.4, 2) * size).astype(int)
        top, left = int(rng.integers(size - height)), int(rng.integers(size - width))
        image[top : top + height, left : left + width] = rng.uniform(0, 255, 3)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def one(name: str) -> str:
    """Returns "a skirt", "pants"."""
    return name if name in _PLURAL else article(name)


def caption(name: str) -> str:
    """Returns "A photo of a skirt."."""
    return sentence(f"a photo of {one(name)}")


def clothing_turns(rng: np.random.Generator, label: int, count: int) -> list[tuple[str, str, str]]:
    """Returns (type, question, answer): what it is always, then yes or no, caption."""
    name = CLASSES[label]
    turns = [("name", pick(rng, NAME_QUESTIONS), name)]
    truth = bool(rng.random() < 0.5)
    others = [other for other in CLASSES if other != name]
    asked = name if truth else pick(rng, others)
    verb = "are these" if asked in _PLURAL else "is this"
    more = [("is_it", f"{verb} {one(asked)}?", "yes" if truth else "no")]
    more.append(("caption", pick(rng, CAPTION_QUESTIONS), caption(name)))
    return turns + [more[int(i)] for i in rng.permutation(2)[: count - 1]]
