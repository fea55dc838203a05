"""Writes the sets of drawings and words again: drawn by another renderer, in other sizes, on other
grounds, and stored as JPEG.

`python -m recipes.demo.elsewhere --work WORK --out DIR` makes `emojione_elsewhere`,
`openmoji_elsewhere` and `words_elsewhere`, with the questions and answers of the sets that
`recipes.demo.benchmark` makes. A model that knows drawings, and not one program's edges and one
frame, is nearly as good on them. The renderer is Skia, the PyPI package `skia-python`.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recipes.demo.benchmark import (
    SEED,
    Item,
    QuestionOnly,
    training_turns,
    word_items,
    write_set,
)
from recipes.demo.draw.emoji import icon_svg
from recipes.demo.draw.emoji_labels import UNSEEN_ARTISTS, emoji_labels, read_json
from recipes.demo.draw.fetch import npm_file
from recipes.demo.draw.further_artists import icon_of
from recipes.demo.draw.language import pick
from recipes.demo.draw.naming import NAME_QUESTIONS
from recipes.demo.draw.records import DemoData
from recipes.demo.draw.words import FONTS

SIDES = (120, 320)
SHAPE = (0.66, 1.0)
QUALITY = 85
WORDS = 500
GREYS = np.array([0.299, 0.587, 0.114])
SETS = (*(f"{artist}_elsewhere" for artist in UNSEEN_ARTISTS), "words_elsewhere")


class EmptyDrawingError(ValueError):
    """A renderer drew nothing."""


def frame(rng: np.random.Generator) -> tuple[int, int]:
    """Returns the longer and the shorter side of a picture."""
    longer = int(rng.integers(SIDES[0], SIDES[1] + 1))
    return longer, round(longer * rng.uniform(*SHAPE))


def ground(rng: np.random.Generator, width: int, height: int, dark: bool) -> np.ndarray:
    """Returns grained paper, lighter towards some place on it: float64[height, width, 3]."""
    y, x = np.mgrid[:height, :width]
    middle = rng.uniform(0, 1, 2) * (width, height)
    far = np.hypot(x - middle[0], y - middle[1]) / np.hypot(width, height)
    tone = rng.uniform(10, 60, 3) if dark else rng.uniform(205, 255, 3)
    paper = tone * (1 - 0.25 * far[..., None]) + rng.normal(0, 3, (height, width, 1))
    return np.clip(paper, 0, 255)


def put(
    rng: np.random.Generator, rgba: np.ndarray, width: int, height: int, dark: bool
) -> Image.Image:
    """Puts a drawing (uint8[h, w, 4], not premultiplied) somewhere on a ground."""
    image = ground(rng, width, height, dark)
    room = np.array([height - rgba.shape[0], width - rgba.shape[1]])
    top, left = (int(place) for place in np.round(rng.uniform(0.1, 0.9, 2) * room))
    part = image[top : top + rgba.shape[0], left : left + rgba.shape[1]]
    part += rgba[..., 3:] / 255 * (rgba[..., :3] - part)
    return Image.fromarray(np.clip(image + 0.5, 0, 255).astype(np.uint8))


def render_svg(svg: str, side: int) -> np.ndarray:
    """Renders SVG text by Skia: uint8[h, w, 4], trimmed, its longer side `side` pixels.

    Raises:
        ModuleNotFoundError: skia-python is not installed.
        EmptyDrawingError: nothing is drawn.
    """
    skia = _skia()
    surface = skia.Surface(side, side)
    dom = skia.SVGDOM.MakeFromStream(skia.MemoryStream.MakeCopy(svg.encode()))
    size = dom.containerSize()
    scale = side / max(size.width(), size.height())
    surface.getCanvas().scale(scale, scale)
    dom.render(surface.getCanvas())
    return trimmed(_pixels(surface))


def render_word(text: str, font: str, width: int) -> np.ndarray:
    """Renders a black word by Skia: uint8[h, w, 4], trimmed, about `width` pixels wide.

    Args:
        text: the word.
        font: one of `words.FONTS`.
        width: of the word.
    """
    import matplotlib

    skia = _skia()
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    typeface = skia.Typeface.MakeFromFile(str(path))
    size = min(100 * width / skia.Font(typeface, 100).measureText(text), 0.55 * width)
    surface = skia.Surface(int(1.3 * width) + 8, int(2 * size) + 8)
    canvas = surface.getCanvas()
    canvas.drawString(text, 0.1 * width, 1.4 * size, skia.Font(typeface, size), skia.Paint())
    return trimmed(_pixels(surface))


def _pixels(surface: Any) -> np.ndarray:
    skia = _skia()
    pixels: np.ndarray = surface.makeImageSnapshot().toarray(
        colorType=skia.kRGBA_8888_ColorType, alphaType=skia.kUnpremul_AlphaType
    )
    return pixels


def trimmed(rgba: np.ndarray) -> np.ndarray:
    """Cuts what is empty off the sides.

    Raises:
        EmptyDrawingError: everything is.

    Example:
        >>> drawn = np.zeros((5, 5, 4), np.uint8)
        >>> drawn[1:3, 2:5, 3] = 255
        >>> trimmed(drawn).shape
        (2, 3, 4)
    """
    inked = rgba[..., 3] > 8
    rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    if not len(rows):
        raise EmptyDrawingError("nothing is drawn")
    return rgba[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _skia() -> Any:
    try:
        import skia
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "these sets are drawn by Skia, which is not installed: pip install skia-python",
            name="skia",
        ) from error
    return skia


def drawing_items(data: DemoData, artist: str) -> Iterator[Item]:
    """Yields the drawings of an unseen artist with the questions of its own set."""
    assert data.work is not None
    icons = read_json(npm_file(data.work, f"@iconify-json/{artist}"), "package/icons.json")
    names = set(icons["icons"]) | set(icons.get("aliases", {}))
    for label in emoji_labels(data.work):
        rng = np.random.default_rng((SEED, label.index))
        width, height = frame(rng)[:: -1 if rng.random() < 0.5 else 1]
        slug = icon_of(artist, label.slug, names)
        assert slug is not None  # unseen artists draw every label
        side = round(rng.uniform(0.75, 0.95) * min(width, height))
        try:
            rgba = render_svg(icon_svg(icons, slug), side)
        except EmptyDrawingError:
            print(f"{artist}: Skia draws nothing of {label.name}, which is left out")
            continue
        yield (
            as_jpeg(put(rng, rgba, width, height, dark=False)),
            [("name", NAME_QUESTIONS[0], label.name)],
        )


def word_pictures(data: DemoData, count: int = WORDS) -> Iterator[Item]:
    """Yields the held-out words with the questions of their own set."""
    for number, (_, turns) in enumerate(word_items(data, count)):
        rng = np.random.default_rng((SEED, number))
        width, height = frame(rng)
        word = turns[0][2].lower()
        style = rng.random()
        text = word.upper() if style < 0.4 else word.capitalize() if style < 0.5 else word
        rgba = render_word(text, pick(rng, FONTS), round(rng.uniform(0.6, 0.9) * width))
        dark = bool(rng.random() < 0.3)
        rgba[..., :3] = _ink(rng, dark)
        yield as_jpeg(put(rng, rgba, width, height, dark)), turns


def _ink(rng: np.random.Generator, dark: bool) -> np.ndarray:
    """Returns a light colour for a dark ground, and the other way round: uint8[3]."""
    while True:
        tone = rng.uniform(0, 255, 3)
        if (tone @ GREYS > 170) if dark else (tone @ GREYS < 90):
            return tone.astype(np.uint8)


def as_jpeg(image: Image.Image) -> bytes:
    """Returns the JPEG file of a picture."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def build(data: DemoData, out: Path, chosen: Sequence[str] = SETS, support: int = 20_000) -> None:
    """Writes the sets and prints their sizes.

    Args:
        data: the recipe's data.
        out: the folder to write to.
        chosen: which sets.
        support: how many training records a question-only guess is learnt from.

    Raises:
        ValueError: an unknown set.
        ModuleNotFoundError: skia-python is not installed.
    """
    _skia()
    for name in chosen:
        if name not in SETS:
            raise ValueError(f"set {name!r} is unknown, expected some of {SETS}")
        source = name.removesuffix("_elsewhere")
        is_word = source == "words"
        items = word_pictures(data) if is_word else drawing_items(data, source)
        turns = training_turns(data, "words" if is_word else "emoji", support)
        made = write_set(out / name, items, QuestionOnly.learn(turns))
        print(f"{name:20s} {made[0]:5d} pictures {made[1]:6d} questions", end="  ")
        print(f"question only {100 * made[2]:5.1f} %", flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="the work folder")
    parser.add_argument("--out", type=Path, required=True, help="where the sets go")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--upper-words", action="store_true", help="words in capitals in answers")
    options = parser.parse_args(arguments)
    data = DemoData(options.work, upper_words=options.upper_words)
    build(data, options.out, options.sets)


if __name__ == "__main__":
    main()
