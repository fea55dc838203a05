"""Makes the pictures in `examples/` anew, from the raw downloads of the demo model's recipe.

Usage:
    python -m tools.make_examples --work DIR --skimage WHEEL --photos PHOTOS --out examples

`DIR` is the work folder of `recipes.demo.draw.fetch`; `WHEEL` is the scikit-image wheel
(`pip download --no-deps scikit-image==0.26.0`), which is opened, not installed; `PHOTOS` is the
folder of photographs, see `recipes.demo.photos.readers`. Sources and licences stand in
`examples/README.md`.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from recipes.demo.draw.emoji import SpriteBank, icon_svg, trim
from recipes.demo.draw.emoji_labels import emoji_labels, read_json
from recipes.demo.draw.fetch import npm_file
from recipes.demo.draw.scenes import SceneMaker
from recipes.demo.draw.splits import held_out
from recipes.demo.draw.words import draw_word
from recipes.demo.photos.readers import read_photos

MAX_BYTES = 100_000
MAX_SIDE = 512
SCENE_SIZE = 192
# two cats, a yellow circle, a camera; and a scene of shapes alone
SCENE_SEED, SHAPES_SEED = 2314, 11
EMOJI, EMOJI_SIZE = "penguin", 128
WORD, WORD_SEED, WORD_SIZE = "lemon", 3, 128
PHOTOS = {
    "astronaut.jpg": "skimage/data/astronaut.png",
    "coffee.jpg": "skimage/data/coffee.png",
}
TAKEN = {
    "dress.jpg": ("clothing", "validation/dress/35f5fecb-755a-45d6-ac3d-3feb8299dc87.jpg"),
    "bear.jpg": ("coco", "coco_ccby/photos/000000000285.jpg"),
    "kitchen.jpg": ("coco", "coco_ccby/photos/000000007574.jpg"),
    "traffic_light.jpg": ("coco", "coco_ccby/photos/000000008762.jpg"),
}
"""File -> set of photographs and name in it; none of them was trained on."""


def scene(work: Path | None, seed: int, size: int = SCENE_SIZE) -> Image.Image:
    """Composes a scene with a combination that no training picture has.

    Args:
        work: the work folder, for Noto's drawings; None for shapes alone.
        seed: which scene.
        size: side in pixels.
    """
    bank = None if work is None else SpriteBank(work, ("noto",))
    made = SceneMaker(bank, size).make(np.random.default_rng(seed), "test")
    return Image.fromarray(made.image)


def emoji(work: Path, name: str = EMOJI, size: int = EMOJI_SIZE) -> Image.Image:
    """Renders one of Noto's drawings on white."""
    import resvg_py

    label = next(one for one in emoji_labels(work) if one.name == name)
    icons = read_json(npm_file(work, "@iconify-json/noto"), "package/icons.json")
    data = resvg_py.svg_to_bytes(
        svg_string=icon_svg(icons, label.slug), width=2 * size, skip_system_fonts=True
    )
    margin = size // 16
    drawing = trim(Image.open(io.BytesIO(data)).convert("RGBA"), size - 2 * margin)
    picture = Image.new("RGB", (size, size), "white")
    picture.paste(drawing, (margin, margin), drawing)
    return picture


def word(text: str = WORD, seed: int = WORD_SEED, size: int = WORD_SIZE) -> Image.Image:
    """Prints a word that is kept out of training.

    Raises:
        ValueError: the word is one of those trained on.
    """
    if not held_out("word", text):
        raise ValueError(f"the word {text!r} is trained on; choose one of the test words")
    return Image.fromarray(draw_word(np.random.default_rng(seed), text, size).image)


def photo(wheel: Path, member: str) -> Image.Image:
    """Reads one picture out of the scikit-image wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return Image.open(io.BytesIO(archive.read(member))).convert("RGB")


def taken(photos: Path, set_name: str, name: str) -> Image.Image:
    """Takes one photograph of a set's validation part.

    Raises:
        FileNotFoundError: there is no such photograph.
    """
    for found in read_photos(photos, set_name, "validation"):
        if found.name == name:
            return found.load()
    raise FileNotFoundError(f"the photographs of {set_name} in {photos} have no {name}")


def encoded(picture: Image.Image, suffix: str) -> bytes:
    """Returns a PNG, or a JPEG in the best quality that stays small, without metadata.

    Args:
        picture: any size; shrunk to `MAX_SIDE`.
        suffix: ".png" or ".jpg".

    Raises:
        ValueError: the picture does not fit `MAX_BYTES`.
    """
    picture = picture.copy()
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    attempts = [{"optimize": True}] if suffix == ".png" else [{"quality": q} for q in (90, 80, 65)]
    for options in attempts:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG" if suffix == ".png" else "JPEG", **options)
        if buffer.tell() <= MAX_BYTES:
            return buffer.getvalue()
    raise ValueError(f"a {suffix} of {picture.size} takes more than {MAX_BYTES} bytes")


def recipes(work: Path, wheel: Path, photos: Path) -> dict[str, Callable[[], Image.Image]]:
    """Returns what makes each file."""
    made: dict[str, Callable[[], Image.Image]] = {
        "scene.png": lambda: scene(work, SCENE_SEED),
        "shapes.png": lambda: scene(None, SHAPES_SEED, 128),
        "emoji.png": lambda: emoji(work),
        "word.png": word,
    }
    for name, source in TAKEN.items():
        made[name] = lambda source=source: taken(photos, *source)  # type: ignore[misc]
    for name, member in PHOTOS.items():
        made[name] = lambda member=member: photo(wheel, member)  # type: ignore[misc]
    return made


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="the recipe's work folder")
    parser.add_argument("--skimage", type=Path, required=True, help="the scikit-image wheel")
    parser.add_argument("--photos", type=Path, required=True, help="the folder of photographs")
    parser.add_argument("--out", type=Path, default=Path("examples"), help="default: examples")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, make in recipes(options.work, options.skimage, options.photos).items():
        data = encoded(make(), Path(name).suffix)
        (options.out / name).write_bytes(data)
        print(f"{name}: {len(data)} bytes")


if __name__ == "__main__":
    main()
