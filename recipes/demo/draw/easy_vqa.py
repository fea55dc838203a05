"""easy-VQA (MIT): 5 000 pictures of one shape, their questions, and what follows from them."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from recipes.demo.draw.fetch import pip_file
from recipes.demo.draw.language import article, pick, sentence
from recipes.demo.draw.scene_questions import CAPTION_QUESTIONS
from recipes.demo.draw.shapes import COLOUR_NAMES, SHAPES

EASY_SHAPES = ("circle", "rectangle", "triangle")


@dataclass(frozen=True)
class EasyVqa:
    """One split.

    Attributes:
        images: uint8[N, 64, 64, 3].
        questions: for each picture its (question, answer) pairs.
        shapes: for each picture the shape's name, or None when no question tells.
        colours: for each picture the colour's name, or None.
        centres: float32[N, 2], the shape's centre (x, y), 0 to 1.
    """

    images: np.ndarray
    questions: tuple[tuple[tuple[str, str], ...], ...]
    shapes: tuple[str | None, ...]
    colours: tuple[str | None, ...]
    centres: np.ndarray


def _told(pairs: tuple[tuple[str, str], ...], names: tuple[str, ...]) -> str | None:
    """Returns the name that the questions and answers give away: by answer, else by "yes"."""
    for _, answer in pairs:
        if answer in names:
            return answer
    for question, answer in pairs:
        negated = " not " in question or " no " in question
        words = question.rstrip("?").split()
        if (answer == "yes") != negated and answer in ("yes", "no"):
            found = [name for name in names if name in words]
            if found:
                return found[0]
    for question, _ in pairs:
        if question.startswith(("what is the", "what color")):
            found = [name for name in names if name in question.rstrip("?").split()]
            if found:
                return found[0]
    return None


def _centre(image: np.ndarray) -> tuple[float, float]:
    """Returns the centre of what differs from the ground; the corners show the ground."""
    ground = np.median(image[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int), 0)
    there = np.abs(image.astype(int) - ground).max(-1) > 24
    rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    if not len(rows):
        return 0.5, 0.5
    height, width = image.shape[:2]
    middle = lambda ends, side: float(ends[0] + ends[-1] + 1) / (2 * side)  # noqa: E731
    return middle(columns, width), middle(rows, height)


def load_easy_vqa(work: Path, split: str) -> EasyVqa:
    """Reads one split out of the wheel.

    Raises:
        FileNotFoundError: when the wheel has not been fetched.
    """
    with zipfile.ZipFile(pip_file(work, "easy-vqa")) as wheel:
        root = f"easy_vqa/data/{split}"
        rows = json.loads(wheel.read(f"{root}/questions.json"))
        by_picture: dict[int, list[tuple[str, str]]] = {}
        for question, answer, number in rows:
            by_picture.setdefault(number, []).append((question, answer))
        names = [f"{root}/images/{number}.png" for number in sorted(by_picture)]
        images = np.stack([_read(wheel.read(name)) for name in names])
    questions = tuple(tuple(by_picture[number]) for number in sorted(by_picture))
    colours = tuple(_told(pairs, COLOUR_NAMES) for pairs in questions)
    shapes = tuple(_told(pairs, EASY_SHAPES) for pairs in questions)
    centres = np.array([_centre(image) for image in images], np.float32)
    return EasyVqa(images, questions, shapes, colours, centres)


def _read(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def change(
    rng: np.random.Generator, image: np.ndarray, centre: np.ndarray, size: int
) -> tuple[np.ndarray, tuple[float, float]]:
    """Mirrors, turns and slightly brightens a picture: uint8[size, size, 3] and the centre."""
    x, y = float(centre[0]), float(centre[1])
    if rng.random() < 0.5:
        image, x = image[:, ::-1], 1 - x
    if rng.random() < 0.5:
        image, y = image[::-1], 1 - y
    if rng.random() < 0.5:
        image, x, y = image.transpose(1, 0, 2), y, x
    image = resized(image, size).astype(np.float32) + rng.uniform(-8, 8, 3).astype(np.float32)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8), (x, y)


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """Returns a square uint8 picture at another size."""
    if image.shape[0] == size:
        return image
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC))


def shape_id(shape: str) -> int:
    """Returns the number of a shape."""
    return SHAPES.index(shape)


def easy_vqa_turns(
    rng: np.random.Generator,
    pairs: tuple[tuple[str, str], ...],
    told: tuple[str | None, str | None],
    count: int,
) -> list[tuple[str, str, str]]:
    """Returns (type, question, answer): up to `count` of its questions, sometimes a caption."""
    order = rng.permutation(len(pairs))[:count]
    turns = [(question_type(pairs[int(i)]), *pairs[int(i)]) for i in order]
    shape, colour = told
    if shape and colour and rng.random() < 0.15:
        text = sentence(article(f"{colour} {shape}"))
        turns[-1] = ("caption", pick(rng, CAPTION_QUESTIONS), text)
    return turns


def question_type(pair: tuple[str, str]) -> str:
    """Returns "yes_no", "colour" or "shape", by the answer."""
    return (
        "yes_no" if pair[1] in ("yes", "no") else "colour" if pair[1] in COLOUR_NAMES else "shape"
    )
