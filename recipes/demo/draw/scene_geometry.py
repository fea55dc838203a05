"""Who is where in a scene: references to one object, clear directions, places."""

from __future__ import annotations

from collections import Counter

import numpy as np

from recipes.demo.draw.language import counted, listing
from recipes.demo.draw.scenes import Scene, Thing

CLEAR_STEP = 0.12
DIRECTIONS = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "above": ("above",),
    "below": ("below", "under"),
}
_AXES = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}


def reference(rng: np.random.Generator, scene: Scene, thing: Thing) -> str | None:
    """Returns words that mean this object and no other, or None."""
    same_name = sum(other.name == thing.name for other in scene.things)
    same_phrase = sum(other.phrase == thing.phrase for other in scene.things)
    if same_phrase > 1:
        return None
    if same_name == 1 and thing.colour is not None and rng.random() < 0.3:
        return thing.name
    return thing.phrase


def is_clear(a: Thing, b: Thing, direction: str) -> bool:
    """Says whether a is beyond doubt in that direction from b."""
    ax, ay = _AXES[direction]
    along = (a.x - b.x) * ax + (a.y - b.y) * ay
    across = abs((a.x - b.x) * ay) + abs((a.y - b.y) * ax)
    return along >= CLEAR_STEP and along >= 1.25 * across


def is_out(a: Thing, b: Thing, direction: str) -> bool:
    """Says whether a is beyond doubt not in that direction from b."""
    ax, ay = _AXES[direction]
    return (a.x - b.x) * ax + (a.y - b.y) * ay <= 0.04


def focus_first(rng: np.random.Generator, scene: Scene) -> list[int]:
    """Returns the objects' numbers, those of the held-out combination first."""
    rest = [int(i) for i in rng.permutation(len(scene.things)) if int(i) not in scene.focus]
    return [int(i) for i in rng.permutation(np.array(scene.focus, int))] + rest


def grouped(things: tuple[Thing, ...] | list[Thing]) -> str:
    """Returns "a dog, two cats and a red circle", from left to right."""
    ordered = sorted(things, key=lambda thing: thing.x)
    counts = Counter(thing.phrase for thing in ordered)
    return listing([counted(phrase, count) for phrase, count in counts.items()])


def _third(value: float) -> int | None:
    """Returns 0, 1, 2 for the thirds of the picture, None near a border."""
    if min(abs(value - 1 / 3), abs(value - 2 / 3)) < 0.035:
        return None
    return min(int(value * 3), 2)


def place_of(thing: Thing) -> str | None:
    """Returns "top left", "left", "center", ...; None when it is on a border."""
    row, column = _third(thing.y), _third(thing.x)
    if row is None or column is None:
        return None
    words = f"{('top', '', 'bottom')[row]} {('left', '', 'right')[column]}".strip()
    return words or "center"
