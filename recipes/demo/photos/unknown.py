"""Pictures of nothing that has a name: noise, and drawings of made-up things.

The ways to make them that are trained and those that are only measured are different.

Example:
    >>> made_up(np.random.default_rng(0), "train", 64).shape
    (64, 64, 3)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Maker = Callable[[np.random.Generator, int], Image.Image]
Points = list[tuple[float, float]]


def noise(rng: np.random.Generator, split: str, size: int) -> np.ndarray:
    """Returns noise: uint8[size, size, 3].

    Args:
        rng: what to draw.
        split: "train" or "validation": the two draw in different ways.
        size: side in pixels.
    """
    return _drawn(rng, NOISES[split], size)


def made_up(rng: np.random.Generator, split: str, size: int) -> np.ndarray:
    """Returns a drawing of a made-up thing: uint8[size, size, 3]; arguments as those of `noise`."""
    return _drawn(rng, DRAWINGS[split], size)


def _drawn(rng: np.random.Generator, makers: Sequence[Maker], size: int) -> np.ndarray:
    return np.asarray(makers[int(rng.integers(len(makers)))](rng, size).convert("RGB"))


def _speckles(rng: np.random.Generator, size: int) -> Image.Image:
    """Every pixel any colour, or any grey."""
    depth = 3 if rng.random() < 0.5 else 1
    return _array(np.broadcast_to(rng.uniform(0, 255, (size, size, depth)), (size, size, 3)))


def _clouds(rng: np.random.Generator, size: int) -> Image.Image:
    """Coloured noise, blurred."""
    image = _array(rng.uniform(0, 255, (size, size, 3)))
    array = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(1, size / 12))), float)
    low, high = array.min(), array.max()
    return _array((array - low) * 255 / max(1.0, high - low))


def _tiles(rng: np.random.Generator, size: int) -> Image.Image:
    """A coarse grid of colours."""
    cells = int(rng.integers(4, 24))
    small = _array(rng.uniform(0, 255, (cells, cells, 3)))
    return small.resize((size, size), Image.Resampling.NEAREST)


def _pepper(rng: np.random.Generator, size: int) -> Image.Image:
    """Some pixels black or white on one colour."""
    array = np.broadcast_to(rng.uniform(40, 215, 3), (size, size, 3)).copy()
    struck = rng.random((size, size)) < rng.uniform(0.05, 0.5)
    array[struck] = rng.choice([0, 255], (int(struck.sum()), 1))
    return _array(array)


def _waves(rng: np.random.Generator, size: int) -> Image.Image:
    """Waves through each other."""
    y, x = np.mgrid[:size, :size] / size
    array = np.zeros((size, size, 3))
    for _ in range(5):
        across, down = rng.uniform(-9, 9, 2)
        wave = np.sin(2 * np.pi * (across * x + down * y + rng.random()))
        array += wave[..., None] * rng.uniform(-1, 1, 3)
    return _array(127 + 40 * array)


def _streaks(rng: np.random.Generator, size: int) -> Image.Image:
    """Noise that is drawn out along one side."""
    array = np.repeat(rng.uniform(0, 255, (size, 1, 3)), size, 1) * 0.7
    array += rng.uniform(0, 75, (size, size, 3))
    return _array(array if rng.random() < 0.5 else array.transpose(1, 0, 2))


def _blobs(rng: np.random.Generator, size: int) -> Image.Image:
    """A few round bodies that overlap, with stalks."""
    image, draw = _sheet(rng, size)
    middle = rng.uniform(0.35, 0.65, 2) * size
    for _ in range(int(rng.integers(2, 6))):
        end = middle + rng.uniform(-0.4, 0.4, 2) * size
        draw.line([*middle, *end], _colour(rng), max(1, int(rng.uniform(0.02, 0.07) * size)))
        draw.polygon(_round(rng, end, rng.uniform(0.05, 0.13) * size), _colour(rng))
    draw.polygon(_round(rng, middle, rng.uniform(0.15, 0.3) * size), _colour(rng))
    return image


def _scribble(rng: np.random.Generator, size: int) -> Image.Image:
    """One long line that crosses itself, some of it filled."""
    image, draw = _sheet(rng, size)
    points = _smooth(rng, int(rng.integers(7, 16)), size)
    if rng.random() < 0.5:
        draw.polygon(points, _colour(rng))
    draw.line(points, _colour(rng), max(1, int(rng.uniform(0.01, 0.04) * size)), joint="curve")
    return image


def _joints(rng: np.random.Generator, size: int) -> Image.Image:
    """Corners and bars put together at their ends."""
    image, draw = _sheet(rng, size)
    at = rng.uniform(0.2, 0.8, 2) * size
    for _ in range(int(rng.integers(4, 9))):
        side = rng.uniform(0.08, 0.22) * size
        turns = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 6))))
        corners = [(at[0] + side * np.cos(t), at[1] + side * np.sin(t)) for t in turns]
        draw.polygon(corners, _colour(rng), outline=(20, 20, 20))
        at = np.clip(corners[-1], 0.1 * size, 0.9 * size)
    return image


def _shells(rng: np.random.Generator, size: int) -> Image.Image:
    """Bodies within bodies, off their middle, with a fringe."""
    image, draw = _sheet(rng, size)
    middle, side = rng.uniform(0.4, 0.6, 2) * size, rng.uniform(0.3, 0.42) * size
    for turn in rng.uniform(0, 2 * np.pi, int(rng.integers(3, 11))):
        end = middle + 1.25 * side * np.array([np.cos(turn), np.sin(turn)])
        draw.line([*middle, *end], _colour(rng), max(1, size // 50))
    for _ in range(int(rng.integers(3, 6))):
        draw.polygon(_round(rng, middle, side), _colour(rng), outline=(20, 20, 20))
        middle, side = middle + rng.uniform(-0.25, 0.25, 2) * side, side * rng.uniform(0.5, 0.75)
    return image


def _array(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(value) for value in rng.integers(0, 256, 3))


def _sheet(rng: np.random.Generator, size: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    ground = (255, 255, 255) if rng.random() < 0.5 else _colour(rng)
    image = Image.new("RGB", (size, size), ground)
    return image, ImageDraw.Draw(image)


def _round(rng: np.random.Generator, middle: np.ndarray, side: float) -> Points:
    """A closed line that wavers around a circle."""
    turns = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    far = np.ones_like(turns)
    for waves in range(2, 6):
        far += rng.uniform(-0.2, 0.2) * np.cos(waves * turns + rng.uniform(0, 2 * np.pi))
    x, y = middle[0] + side * far * np.cos(turns), middle[1] + side * far * np.sin(turns)
    return [*zip(x.tolist(), y.tolist(), strict=True)]


def _smooth(rng: np.random.Generator, corners: int, size: int) -> Points:
    """A line through random places without corners."""
    places = rng.uniform(0.08, 0.92, (corners, 2)) * size
    steps = np.linspace(0, 1, 12, endpoint=False)[:, None]
    middles = (places[1:] + places[:-1]) / 2
    points = [
        (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end
        for start, bend, end in zip(middles, places[1:-1], middles[1:], strict=False)
    ]
    return [(float(x), float(y)) for x, y in np.concatenate(points)]


NOISES: dict[str, tuple[Maker, ...]] = {
    "train": (_speckles, _clouds, _tiles),
    "validation": (_pepper, _waves, _streaks),
}
DRAWINGS: dict[str, tuple[Maker, ...]] = {
    "train": (_blobs, _scribble),
    "validation": (_joints, _shells),
}
