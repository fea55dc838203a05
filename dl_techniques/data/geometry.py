"""Pad, crop and resize pictures: pure functions on `uint8[H, W, 3]` arrays.

Resizing is Pillow's: antialiased, in 8 bit, as CLIP-style processors do it. Apple's FastVLM
pads to a square first and resizes then. `pad_and_resize` gives the very same bytes without ever
holding the whole square: Pillow resizes rows and columns in two passes with 8 bit between them,
so the pass over rows may run on strips of the padded picture, and leave its margins out.
Only pictures with a side above 16384 (a square of 805 MB) are resized first and padded then.

Reference: Apple's FastVLM `llava/mm_utils.py` (`expand2square`),
https://github.com/apple/ml-fastvlm
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# `crop_and_resize` resizes a picture before its crop up to as many pixels.
MAX_WHOLE_SQUARE = 4096 * 4096
# Pixels of the padded square that are held at once.
STRIP_PIXELS = 1 << 20
# Longest side for which the bytes equal padding first; beyond it time and memory would explode.
MAX_EXACT_SIDE = 16384


def interpolation_names() -> list[str]:
    """Names that `resize` accepts."""
    return list(_FILTERS)


def resize(
    image: np.ndarray, height: int, width: int, interpolation: Interpolation = "bicubic"
) -> np.ndarray:
    """Resize `uint8[H, W, 3]` to `uint8[height, width, 3]`, antialiased, aspect ratio ignored."""
    if image.shape[:2] == (height, width):
        return image
    resized = Image.fromarray(image).resize((width, height), _FILTERS[interpolation])
    return np.asarray(resized)


def resize_shortest_edge(
    image: np.ndarray, size: int, interpolation: Interpolation = "bicubic"
) -> np.ndarray:
    """Resize so that the shorter edge is `size`; the longer one is rounded down.

    Args:
        image: uint8[H, W, 3].
        size: Pixels of the shorter edge.
        interpolation: Filter name.

    Returns:
        uint8[size, W', 3] or uint8[H', size, 3].
    """
    height, width = image.shape[:2]
    if width <= height:
        return resize(image, int(size * height / width), size, interpolation)
    return resize(image, size, int(size * width / height), interpolation)


def center_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cut the middle `height` x `width` out of `uint8[H, W, 3]`.

    Raises:
        ValueError: the picture is smaller than the crop.
    """
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    if top < 0 or left < 0:
        raise ValueError(
            f"Cannot crop {height}x{width} out of a picture of "
            f"{image.shape[0]}x{image.shape[1]}; resize it first."
        )
    return image[top : top + height, left : left + width]


def crop_and_resize(
    image: np.ndarray, size: int, interpolation: Interpolation = "bicubic"
) -> np.ndarray:
    """Shorter edge to `size`, then the middle square: `uint8[size, size, 3]`.

    Equal to `CLIPImageProcessor` with `size={"shortest_edge": size}` and a centre crop. A very
    long picture is cut to its middle before it is resized (its bytes may then differ by
    rounding), because its longer edge would grow without bound.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest * size * size > MAX_WHOLE_SQUARE * min(height, width):
        image = center_crop(image, min(height, width), min(height, width))
        return resize(image, size, size, interpolation)
    return center_crop(resize_shortest_edge(image, size, interpolation), size, size)


def pad_to_square(image: np.ndarray, color: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """Centre `uint8[H, W, 3]` on a square of side max(H, W) filled with `color`."""
    height, width = image.shape[:2]
    if height == width:
        return image
    side = max(height, width)
    square = filled(side, side, color)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def pad_and_resize(
    image: np.ndarray,
    size: int,
    color: tuple[int, int, int] = (0, 0, 0),
    interpolation: Interpolation = "bicubic",
    max_whole_square: int = STRIP_PIXELS,
) -> np.ndarray:
    """`resize(pad_to_square(image, color), size, size)`, in bounded time and memory.

    A picture with a side above `MAX_EXACT_SIDE` is resized first (its short side to one pixel
    at least) and padded then.

    Args:
        image: uint8[H, W, 3].
        size: Side of the result, pixels.
        color: Colour of the margins, 0..255.
        interpolation: Filter name.
        max_whole_square: Pixels of the padded square that are held at once: its strips are
            resized one after the other, byte for byte as the whole.

    Returns:
        uint8[size, size, 3].
    """
    height, width = image.shape[:2]
    side = max(height, width)
    if height == width:
        return resize(image, size, size, interpolation)
    if side > MAX_EXACT_SIDE:
        new_height, new_width = (max(1, round(n * size / side)) for n in (height, width))
        return pad_to_square(resize(image, new_height, new_width, interpolation), color)
    rows = _padded_rows(image, size, color, interpolation, max_whole_square)
    return resize(rows, size, size, interpolation)


def filled(height: int, width: int, color: tuple[int, int, int]) -> np.ndarray:
    """`uint8[height, width, 3]` of one colour.

    A row at a time: numpy writes three bytes at a time into a whole picture, twenty times slower.
    """
    row = np.empty((width, 3), "uint8")
    row[...] = color
    area = np.empty((height, width, 3), "uint8")
    area[...] = row
    return area


def _padded_rows(
    image: np.ndarray,
    size: int,
    color: tuple[int, int, int],
    interpolation: Interpolation,
    strip_pixels: int,
) -> np.ndarray:
    """The rows of the padded square after Pillow's pass over rows: `uint8[side, size, 3]`.

    Rows of the margin have one colour, before the pass and after it. A wide picture's own rows
    need no padding; those of a tall one are padded in a strip that is used again and again.
    """
    height, width = image.shape[:2]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    rows = filled(side, size, color)
    step = max(1, strip_pixels // side)
    strip = filled(min(step, height), side, color) if width < side else None
    for start in range(0, height, step):
        part = image[start : start + step]
        if strip is not None:
            strip[: len(part), left : left + width] = part
            part = strip[: len(part)]
        first = top + start
        rows[first : first + len(part)] = resize(part, len(part), size, interpolation)
    return rows
