"""Emoji drawings as small premultiplied RGBA sprites, rendered once and cached a file an artist.

`python -m recipes.demo.draw.emoji --work DIR` renders all six sets.
"""

from __future__ import annotations

import argparse
import io
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recipes.demo.draw.emoji_labels import (
    ARTISTS,
    TRAIN_ARTISTS,
    UNSEEN_ARTISTS,
    EmojiLabel,
    emoji_labels,
    read_json,
)
from recipes.demo.draw.fetch import npm_file
from recipes.demo.draw.further_artists import FURTHER_ARTISTS, icon_of

SPRITE_SIZE = 96


def _icon(icons: dict[str, Any], slug: str) -> tuple[dict[str, Any], bool]:
    """Returns (icon, flipped) after following aliases."""
    flipped = False
    while slug not in icons["icons"]:
        alias = icons["aliases"][slug]
        flipped ^= bool(alias.get("hFlip"))
        slug = alias["parent"]
    return icons["icons"][slug], flipped


def icon_svg(icons: dict[str, Any], slug: str) -> str:
    """Returns the SVG text of one icon of an iconify set."""
    icon, flipped = _icon(icons, slug)
    left, top = icon.get("left", 0), icon.get("top", 0)
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    body = icon["body"]
    if flipped:
        body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{body}</svg>'
    )


def trim(picture: Image.Image, size: int = SPRITE_SIZE) -> Image.Image:
    """Crops an RGBA picture to what is drawn and fits that, centred, in a square."""
    box = picture.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox()
    if box is None:
        raise ValueError("the drawing is empty")
    picture = picture.crop(box)
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    square = Image.new("RGBA", (size, size))
    small = picture.resize((width, height), Image.Resampling.LANCZOS)
    square.paste(small, ((size - width) // 2, (size - height) // 2))
    return square


def render_sprite(svg: str, size: int = SPRITE_SIZE) -> np.ndarray:
    """Renders SVG text to premultiplied uint8[size, size, 4]."""
    import resvg_py

    data = resvg_py.svg_to_bytes(svg_string=svg, width=2 * size, skip_system_fonts=True)
    square = trim(Image.open(io.BytesIO(data)).convert("RGBA"), size)
    array = np.asarray(square, np.uint16)
    colour = (array[..., :3] * array[..., 3:] + 127) // 255
    return np.concatenate([colour, array[..., 3:]], -1).astype(np.uint8)


def sprite_file(work: Path, artist: str) -> Path:
    """Returns the cache file of one artist."""
    return Path(work) / "cache" / f"emoji_{artist}.npz"


def load_sprites(work: Path, artist: str) -> np.ndarray:
    """Returns uint8[650, 96, 96, 4], premultiplied, rendering and caching it when needed.

    What an artist does not draw is empty.
    """
    path = sprite_file(work, artist)
    if not path.is_file():
        _build(work, artist, path)
    with np.load(path) as data:
        return data["sprites"]


def _build(work: Path, artist: str, path: Path) -> None:
    icons = read_json(npm_file(work, f"@iconify-json/{artist}"), "package/icons.json")
    labels = emoji_labels(work)
    names = set(icons["icons"]) | set(icons.get("aliases", {}))
    found = [icon_of(artist, label.slug, names) for label in labels]
    empty = np.zeros((SPRITE_SIZE, SPRITE_SIZE, 4), np.uint8)
    sprites = np.stack(
        [empty if slug is None else render_sprite(icon_svg(icons, slug)) for slug in found]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    np.savez_compressed(partial, sprites=sprites)
    partial.replace(path)


def to_image(sprite: np.ndarray) -> Image.Image:
    """Wraps premultiplied uint8[H, W, 4] in a four-band picture.

    CMYK is used as four plain bands: an RGBA picture would be premultiplied once more.
    """
    height, width = sprite.shape[:2]
    data = np.ascontiguousarray(sprite).tobytes()
    return Image.frombytes("CMYK", (width, height), data)


class SpriteBank:
    """All drawings of some artists, at two resolutions, and small resized ones on demand.

    Args:
        work: the work folder.
        artists: which sets; by default the four that draw every label and may be trained on.

    Attributes:
        drawn: bool[artists, 650], which artist draws which label.
    """

    def __init__(self, work: Path, artists: tuple[str, ...] = TRAIN_ARTISTS) -> None:
        self.artists = artists
        self.labels: tuple[EmojiLabel, ...] = emoji_labels(work)
        self.sprites = np.stack([load_sprites(work, artist) for artist in artists])
        self.half = _halve(self.sprites)
        self.drawn = self.half[..., 3].any((-1, -2))
        self.means = self._mean_colours()
        self.resized = lru_cache(maxsize=8192)(self._resized)

    def _mean_colours(self) -> np.ndarray:
        """float32[artists, 650, 3]: the mean colour of what is drawn."""
        total = self.half.reshape(*self.half.shape[:2], -1, 4).astype(np.float32).sum(2)
        return 255.0 * total[..., :3] / np.maximum(total[..., 3:], 1.0)

    def image(self, artist: int, label: int, half: bool = False) -> Image.Image:
        """Returns one drawing as four bands, 96 or 48 pixels."""
        return to_image((self.half if half else self.sprites)[artist, label])

    def _resized(self, artist: int, label: int, size: int, flip: bool) -> np.ndarray:
        """Returns premultiplied float32[size, size, 4], 0 to 255."""
        picture = self.image(artist, label).resize((size, size), Image.Resampling.HAMMING)
        array = np.asarray(picture, np.float32)
        return array[:, ::-1] if flip else array


def _halve(sprites: np.ndarray) -> np.ndarray:
    """Returns the mean of each 2 x 2 block of uint8[..., H, W, 4]."""
    total = sprites[..., ::2, ::2, :].astype(np.uint16)
    total += sprites[..., 1::2, ::2, :]
    total += sprites[..., ::2, 1::2, :]
    total += sprites[..., 1::2, 1::2, :]
    return ((total + 2) // 4).astype(np.uint8)


def training_bank(work: Path, artists: tuple[str, ...] = TRAIN_ARTISTS) -> SpriteBank:
    """Returns drawings that may be trained on; an unseen artist among them is an error."""
    bank = SpriteBank(work, artists)
    if set(bank.artists) & set(UNSEEN_ARTISTS):
        raise AssertionError(f"unseen artists among the training artists {bank.artists}")
    return bank


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="the work folder")
    options = parser.parse_args(arguments)
    for artist in ARTISTS + FURTHER_ARTISTS:
        start = time.perf_counter()
        shape = load_sprites(options.work, artist).shape
        print(f"{artist}: {shape} in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
