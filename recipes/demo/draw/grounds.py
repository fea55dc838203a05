"""Grounds to put things on: plain, graded, blotched, striped, checked."""

from __future__ import annotations

import numpy as np
from PIL import Image

FLAT, GRADED, BLOTCHED, STRIPED, CHECKED = range(5)
KIND_SHARES = (0.38, 0.22, 0.2, 0.12, 0.08)


def random_tone(rng: np.random.Generator) -> np.ndarray:
    """Returns float32[3], 0 to 255: light more often than dark or saturated."""
    style = rng.random()
    if style < 0.5:
        return rng.uniform(190, 255, 3).astype(np.float32)
    if style < 0.7:
        return rng.uniform(0, 80, 3).astype(np.float32)
    return rng.uniform(20, 235, 3).astype(np.float32)


def _pattern(rng: np.random.Generator, size: int, kind: int) -> np.ndarray:
    """Returns float32[size, size], 0 to 1: how much of the second tone is where."""
    axis = np.arange(size, dtype=np.float32)
    if kind == FLAT:
        return np.zeros((size, size), np.float32)
    if kind == BLOTCHED:
        coarse = rng.random((int(rng.integers(3, 9)),) * 2, np.float32)
        return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
    angle = rng.uniform(0, 2 * np.pi)
    along = np.cos(angle) * axis[None, :] + np.sin(angle) * axis[:, None]
    if kind == GRADED:
        return (along - along.min()) / np.ptp(along)
    step = rng.uniform(0.06, 0.25) * size
    stripes = np.floor(along / step) % 2
    if kind == STRIPED:
        return stripes
    across = -np.sin(angle) * axis[None, :] + np.cos(angle) * axis[:, None]
    return np.abs(stripes - np.floor(across / step) % 2)


def make_ground(
    rng: np.random.Generator, size: int, contrast: float = 45.0
) -> tuple[np.ndarray, np.ndarray]:
    """Makes a ground.

    Args:
        rng: the source of randomness.
        size: side in pixels.
        contrast: the most that the second tone differs from the first, in each channel.

    Returns:
        float32[size, size, 3], 0 to 255, and its two tones float32[2, 3].
    """
    first = random_tone(rng)
    second = np.clip(first + rng.uniform(-contrast, contrast, 3), 0, 255).astype(np.float32)
    kind = int(rng.choice(5, p=KIND_SHARES))
    if kind == FLAT:
        second = first
    share = _pattern(rng, size, kind)[..., None].astype(np.float32)
    return np.clip(first + share * (second - first), 0, 255), np.stack([first, second])
