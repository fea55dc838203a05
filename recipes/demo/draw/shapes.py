"""Plain shapes and named colours."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

# "rectangle" only occurs in easy-VQA; it has a number so that labels can name it
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "rectangle")
SCENE_SHAPES = SHAPES[:7]
COLOURS = {
    "red": (222, 30, 34),
    "orange": (250, 140, 20),
    "yellow": (250, 222, 40),
    "green": (38, 160, 60),
    "blue": (40, 80, 220),
    "purple": (140, 50, 180),
    "pink": (250, 140, 190),
    "brown": (125, 75, 35),
    "black": (16, 16, 18),
    "white": (250, 250, 250),
}
# easy-VQA has two more colours
COLOUR_NAMES = (*COLOURS, "gray", "teal")
_OVERSAMPLE = 6


def _points(shape: str) -> np.ndarray:
    """Returns the outline float[N, 2] of a shape around the origin, radius about 1."""
    if shape == "square":
        return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.9
    if shape == "triangle":
        return np.array([(0, -1), (1, 0.85), (-1, 0.85)])
    if shape == "diamond":
        return np.array([(0, -1), (0.72, 0), (0, 1), (-0.72, 0)])
    if shape == "cross":
        a = 0.34
        corner = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a)]
        return np.array(corner + [(-x, -y) for x, y in corner])
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    if shape == "star":
        turn = np.arange(10) * np.pi / 5
        radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.45)
        return np.stack([radius * np.sin(turn), -radius * np.cos(turn)], -1)
    if shape == "heart":
        x = np.sin(turn) ** 3
        y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
        return np.stack([x, -(y + 2.5) / 15], -1)
    if shape == "circle":
        return np.stack([np.sin(turn), np.cos(turn)], -1)
    raise ValueError(f"shape {shape!r} cannot be drawn, expected one of {SCENE_SHAPES}")


@lru_cache(maxsize=8192)
def shape_mask(shape: str, size: int, angle: int = 0) -> np.ndarray:
    """Returns float32[size, size], 0 to 1: how much of each pixel a shape covers.

    Args:
        shape: one of SCENE_SHAPES.
        size: side of the square around it, in pixels.
        angle: rotation in degrees.
    """
    turn = np.deg2rad(angle)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    points = _points(shape) @ matrix
    points = points / max(1.0, float(np.abs(points).max()))
    side = size * _OVERSAMPLE
    picture = Image.new("L", (side, side))
    outline = [tuple(p) for p in (points + 1) * 0.5 * (side - 1)]
    ImageDraw.Draw(picture).polygon(outline, fill=255)
    small = picture.resize((size, size), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255.0


def colour_id(name: str) -> int:
    """Returns the number of a colour."""
    return COLOUR_NAMES.index(name)


def visible_colours(tones: np.ndarray, distance: float = 110.0) -> list[str]:
    """Returns the colours that stand out against every tone of a ground.

    Args:
        tones: float[N, 3], 0 to 255.
        distance: the least distance in RGB.
    """
    names = list(COLOURS)
    table = np.array([COLOURS[name] for name in names], np.float32)
    gap = np.sqrt(((table[:, None] - tones[None]) ** 2).sum(-1)).min(1)
    return [name for name, far in zip(names, gap, strict=True) if far >= distance]
