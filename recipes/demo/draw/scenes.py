"""Composed pictures: one to five drawings and shapes, with everything about them known."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from recipes.demo.draw.emoji import SpriteBank
from recipes.demo.draw.grounds import make_ground
from recipes.demo.draw.shapes import COLOURS, SCENE_SHAPES, shape_mask, visible_colours
from recipes.demo.draw.splits import held_out

# emoji labels that anyone names with the same word
NOUNS = (
    "dog", "cat", "horse", "cow", "pig", "mouse", "rabbit", "bear", "elephant", "fox", "tiger",
    "bird", "penguin", "duck", "owl", "frog", "turtle", "snake", "fish", "whale", "octopus",
    "crab", "butterfly", "spider", "snail", "rose", "sunflower", "cactus", "mushroom", "tulip",
    "banana", "lemon", "pineapple", "strawberry", "carrot", "pear", "pizza", "hamburger",
    "cookie", "egg", "house", "castle", "bus", "taxi", "bicycle", "airplane", "rocket",
    "sailboat", "tractor", "umbrella", "key", "guitar", "bell", "crown", "hammer", "balloon",
    "cloud", "snowman", "door", "bed", "drum", "trophy", "candle", "camera",
)  # fmt: skip
COUNT_SHARES = (0.14, 0.25, 0.26, 0.2, 0.15)
GRID = 4


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    Attributes:
        name: "dog", "circle".
        colour: a colour's name for a shape, None for a drawing.
        x: centre, 0 (left) to 1 (right).
        y: centre, 0 (top) to 1 (bottom).
        size: side of its square, as a share of the picture's side.
    """

    name: str
    colour: str | None
    x: float
    y: float
    size: float

    @property
    def phrase(self) -> str:
        """Returns "dog", "red circle"."""
        return self.name if self.colour is None else f"{self.colour} {self.name}"

    @property
    def cell(self) -> tuple[int, int]:
        """Returns (row, column) in the 4 x 4 grid."""
        return min(int(self.y * GRID), GRID - 1), min(int(self.x * GRID), GRID - 1)


@dataclass(frozen=True)
class Scene:
    """A composed picture: uint8[S, S, 3], its objects, and what is held out in it."""

    image: np.ndarray
    things: tuple[Thing, ...]
    focus: tuple[int, ...] = field(default=())


def relation(a: Thing, b: Thing) -> tuple[str, str, str]:
    """Returns the main relation of two objects, as (object, "left" or "above", object)."""
    dx, dy = b.x - a.x, b.y - a.y
    if abs(dx) >= abs(dy):
        return (a.name, "left", b.name) if dx > 0 else (b.name, "left", a.name)
    return (a.name, "above", b.name) if dy > 0 else (b.name, "above", a.name)


def held_out_colour(thing: Thing) -> bool:
    """Says whether a colour and shape are never trained on together."""
    return thing.colour is not None and held_out("colour", thing.colour, thing.name)


def held_out_pair(a: Thing, b: Thing) -> bool:
    """Says whether (object, relation, object) is never trained on."""
    return a.name != b.name and held_out("relation", *relation(a, b))


def held_out_parts(things: tuple[Thing, ...] | list[Thing]) -> list[tuple[int, ...]]:
    """Returns the index (colour x shape) or two indices (relation) of all held-out parts."""
    single: list[tuple[int, ...]] = [
        (i,) for i, thing in enumerate(things) if held_out_colour(thing)
    ]
    pairs: list[tuple[int, ...]] = [
        (i, j)
        for i, j in combinations(range(len(things)), 2)
        if held_out_pair(things[i], things[j])
    ]
    return single + pairs


class SceneMaker:
    """Composes scenes.

    Args:
        bank: drawings of the training artists; None makes scenes of shapes alone.
        size: side of the pictures in pixels.
    """

    def __init__(self, bank: SpriteBank | None, size: int = 64) -> None:
        self.bank = bank
        self.size = size
        self.label_ids: dict[str, int] = {}
        if bank is not None:
            by_name = {label.name: label.index for label in bank.labels}
            self.label_ids = {noun: by_name[noun] for noun in NOUNS}

    def make(self, rng: np.random.Generator, split: str) -> Scene:
        """Composes one scene; "test" always holds a held-out combination, "train" never."""
        ground, tones = make_ground(rng, self.size)
        colours = visible_colours(tones)
        for _ in range(400):
            things = self._things(rng, colours, split)
            parts = held_out_parts(things)
            if bool(parts) == (split == "test") and things:
                break
        else:
            raise RuntimeError(f"no {split} scene was found in 400 draws")
        image = self._draw(rng, ground, tones, things)
        focus = parts[int(rng.integers(len(parts)))] if parts else ()
        return Scene(image, tuple(things), focus)

    def _things(self, rng: np.random.Generator, colours: list[str], split: str) -> list[Thing]:
        places = self._places(rng)
        repeated = self._identity(rng, colours) if rng.random() < 0.35 else None
        things: list[Thing] = []
        for x, y, size in places:
            for _ in range(12):
                again = repeated if rng.random() < 0.7 else None
                name, colour = again or self._identity(rng, colours)
                thing = Thing(name, colour, x, y, size)
                if split == "test" or self._may_join(thing, things):
                    things.append(thing)
                    break
        return things

    @staticmethod
    def _may_join(thing: Thing, things: list[Thing]) -> bool:
        if held_out_colour(thing):
            return False
        return not any(held_out_pair(other, thing) for other in things)

    def _identity(self, rng: np.random.Generator, colours: list[str]) -> tuple[str, str | None]:
        if self.label_ids and rng.random() < 0.55:
            return NOUNS[int(rng.integers(len(NOUNS)))], None
        shape = SCENE_SHAPES[int(rng.integers(len(SCENE_SHAPES)))]
        return shape, colours[int(rng.integers(len(colours)))]

    def _places(self, rng: np.random.Generator) -> list[tuple[float, float, float]]:
        """Returns (x, y, size) of places that do not overlap, each in its own cell."""
        count = int(rng.choice(5, p=COUNT_SHARES)) + 1
        low, high = ((0.3, 0.7), (0.24, 0.5), (0.22, 0.4), (0.2, 0.36), (0.2, 0.34))[count - 1]
        places: list[tuple[float, float, float]] = []
        for _ in range(12 * count):
            size = round(rng.uniform(low, high) * self.size) / self.size
            x, y = rng.uniform(size / 2, 1 - size / 2, 2)
            if not any(_clash((x, y, size), other) for other in places):
                places.append((float(x), float(y), size))
            if len(places) == count:
                break
        return places

    def _draw(
        self, rng: np.random.Generator, ground: np.ndarray, tones: np.ndarray, things: list[Thing]
    ) -> np.ndarray:
        canvas = ground
        for thing in things:
            side = round(thing.size * self.size)
            left = int(np.clip(round(thing.x * self.size - side / 2), 0, self.size - side))
            top = int(np.clip(round(thing.y * self.size - side / 2), 0, self.size - side))
            sprite = self._sprite(rng, thing, side, tones)
            window = canvas[top : top + side, left : left + side]
            window *= 1.0 - sprite[..., 3:] / 255.0
            window += sprite[..., :3]
        if rng.random() < 0.2:
            canvas = canvas + rng.normal(0, rng.uniform(1, 6), canvas.shape).astype(np.float32)
        return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)

    def _sprite(
        self, rng: np.random.Generator, thing: Thing, side: int, tones: np.ndarray
    ) -> np.ndarray:
        """Returns premultiplied float32[side, side, 4], 0 to 255."""
        if thing.colour is not None:
            mask = shape_mask(thing.name, side, int(rng.integers(-3, 4)) * 4)[..., None]
            jitter = rng.uniform(-14, 14, 3)
            colour = np.clip(np.array(COLOURS[thing.colour]) + jitter, 0, 255)
            rgb = mask * colour.astype(np.float32)
            return np.concatenate([rgb, mask * 255.0], -1)
        assert self.bank is not None
        label = self.label_ids[thing.name]
        gap = np.abs(self.bank.means[:, label, None] - tones[None]).max(-1).min(-1)
        visible = np.flatnonzero(gap >= min(40.0, float(gap.max())))
        artist = int(visible[int(rng.integers(len(visible)))])
        return self.bank.resized(artist, label, side, bool(rng.random() < 0.5))


def _clash(a: tuple[float, float, float], b: tuple[float, float, float]) -> bool:
    near = (a[2] + b[2]) / 2
    if abs(a[0] - b[0]) < near and abs(a[1] - b[1]) < near:
        return True
    return (int(a[0] * GRID), int(a[1] * GRID)) == (int(b[0] * GRID), int(b[1] * GRID))
