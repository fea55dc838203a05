"""Changes to one drawing that leave its name true: turns, colours, outlines, cut-outs."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from recipes.demo.draw.emoji import to_image
from recipes.demo.draw.grounds import make_ground

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
# names that a mirror, a turn or another colour would make untrue
SIDED = re.compile(r"left|right|moon|o'clock|thirty|label|flag")
UPRIGHT = re.compile(r"o'clock|thirty")
COLOURED = re.compile(r"\b(red|green|blue|orange|white|black)\b")


def warp(
    rng: np.random.Generator, sprite: np.ndarray, half: np.ndarray, size: int, name: str
) -> np.ndarray:
    """Places a premultiplied sprite at random: float32[size, size, 4], 0 to 255.

    Args:
        rng: the source of randomness.
        sprite: uint8[96, 96, 4].
        half: the same at half the resolution.
        size: side of the result in pixels.
        name: what it is called; decides on mirrors and turns.
    """
    scale = rng.uniform(0.5, 1.02)
    limit = 8.0 if UPRIGHT.search(name) else 22.0
    angle = np.deg2rad(rng.uniform(-limit, limit)) if rng.random() < 0.6 else 0.0
    stretch = rng.uniform(0.85, 1.18) if rng.random() < 0.5 else 1.0
    mirror = -1.0 if rng.random() < 0.5 and not SIDED.search(name) else 1.0
    shear = rng.uniform(-0.15, 0.15) if rng.random() < 0.3 else 0.0
    source = half if scale * size < 0.6 * sprite.shape[0] else sprite
    side = source.shape[0]
    zoom = side / (scale * size)
    room = max(0.0, 1 - scale) * size / 2 + 0.03 * size
    shift = rng.uniform(-room, room, 2)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, sin], [-sin, cos]]) @ np.array([[mirror, shear], [0, 1]])
    matrix = zoom * matrix @ np.diag([1 / stretch, stretch])
    offset = side / 2 - matrix @ (size / 2 + shift)
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    picture = to_image(source).transform(
        (size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    return np.asarray(picture, np.float32)


def recolour(rng: np.random.Generator, rgba: np.ndarray, name: str) -> np.ndarray:
    """Jitters the colours of a premultiplied sprite; names with a colour only a little."""
    strength = 0.25 if COLOURED.search(name) else 1.0
    style = rng.random()
    matrix: np.ndarray = np.eye(3, dtype=np.float32)
    if strength == 1.0 and style < 0.08:
        matrix = matrix[rng.permutation(3)]
    elif strength == 1.0 and style < 0.2:
        keep = rng.uniform(0, 0.5)
        matrix = keep * matrix + (1 - keep) * np.tile(_LUMINANCE, (3, 1))
    elif style < 0.65:
        saturation = 1 + strength * rng.uniform(-0.5, 0.5)
        matrix = saturation * matrix + (1 - saturation) * np.tile(_LUMINANCE, (3, 1))
        matrix = _hue(strength * rng.normal(0, 0.35)) @ matrix
        matrix = matrix * (1 + strength * rng.uniform(-0.2, 0.2, (3, 1)))
    elif style > 0.9:
        return rgba
    alpha = rgba[..., 3:]
    gain, lift = rng.uniform(0.8, 1.2), rng.uniform(-0.08, 0.08)
    rgb = rgba[..., :3] @ (gain * matrix).T.astype(np.float32) + np.float32(lift) * alpha
    return np.concatenate([np.clip(rgb, 0, alpha), alpha], -1)


def _hue(angle: float) -> np.ndarray:
    """Returns the rotation of RGB around grey by an angle in radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    third, root = (1 - cos) / 3, sin / np.sqrt(3)
    rows = [[cos + third, third - root, third + root]]
    rows.append([third + root, cos + third, third - root])
    rows.append([third - root, third + root, cos + third])
    return np.array(rows, np.float32)


def _spread(plane: np.ndarray) -> np.ndarray:
    """Returns the largest value of each pixel and its four neighbours."""
    out = plane.copy()
    np.maximum(out[1:], plane[:-1], out=out[1:])
    np.maximum(out[:-1], plane[1:], out=out[:-1])
    np.maximum(out[:, 1:], plane[:, :-1], out=out[:, 1:])
    np.maximum(out[:, :-1], plane[:, 1:], out=out[:, :-1])
    return out


def outline(rng: np.random.Generator, rgba: np.ndarray) -> np.ndarray:
    """Redraws a premultiplied sprite with dark lines, flat colours or as a line drawing."""
    alpha = rgba[..., 3]
    grey = rgba[..., :3] @ _LUMINANCE
    wide = _spread(alpha)
    step = _spread(grey) + _spread(-grey)
    lines = np.clip((step - rng.uniform(30, 70)) / 40.0, 0, 1) * (alpha / 255.0)
    border = np.clip((wide - alpha) / 255.0 + (alpha + _spread(255 - alpha) - 255) / 255.0, 0, 1)
    if rng.random() < 0.4:
        wide = _spread(wide)
        border = np.maximum(border, np.clip((wide - alpha) / 255.0, 0, 1))
    inner = lines if rng.random() < 0.6 else 0.4 * lines
    ink = np.clip(np.maximum(border, inner), 0, 1)[..., None]
    rgb = rgba[..., :3]
    if rng.random() < 0.3:
        fill = rng.uniform(0.5, 1.0)
        rgb = rgb * (1 - fill) + fill * alpha[..., None]
    elif rng.random() < 0.5:
        rgb = np.floor(rgb / 52.0) * 51.0 + 25.0 * (alpha[..., None] > 128)
    tone = rng.uniform(0, 50) if rng.random() < 0.8 else rng.uniform(0, 120)
    alpha = np.maximum(alpha, wide)[..., None]
    rgb = np.clip(rgb * (1 - ink) + tone * ink * alpha / 255.0, 0, alpha)
    return np.concatenate([rgb, alpha], -1)


def emoji_ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """Returns float32[size, size, 3]: white a third of the time, else light, black or anything."""
    style = rng.random()
    if style < 0.35:
        return np.full((size, size, 3), 255, np.float32)
    if style < 0.45:
        return np.full((size, size, 3), rng.uniform(225, 255, 3), np.float32)
    if style < 0.5:
        return np.full((size, size, 3), rng.uniform(0, 30, 3), np.float32)
    return make_ground(rng, size, 70.0)[0]


def damage(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Cuts patches out of float32[S, S, 3] and blurs or roughens it, each now and then."""
    size = image.shape[0]
    if rng.random() < 0.25:
        height, width = (rng.uniform(0.1, 0.35, 2) * size).astype(int)
        top, left = int(rng.integers(size - height)), int(rng.integers(size - width))
        image[top : top + height, left : left + width] = rng.uniform(0, 255, 3)
    style = rng.random()
    if style < 0.12:
        image = image + rng.normal(0, rng.uniform(2, 12), image.shape).astype(np.float32)
    elif style < 0.2:
        small = round(size * rng.uniform(0.45, 0.8))
        picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
        picture = picture.resize((small, small), Image.Resampling.BILINEAR)
        image = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR), np.float32)
    return image


def composite(rgba: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """Puts a premultiplied sprite on a ground of the same size: float32[S, S, 3]."""
    return rgba[..., :3] + ground * (1.0 - rgba[..., 3:] / 255.0)
