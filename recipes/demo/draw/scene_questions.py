"""Questions about a composed scene, each with the one right answer.

A question is only asked where the answer is beyond doubt: what it speaks of is there once, sizes
and directions differ clearly. Functions return (question, answer) or None.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recipes.demo.draw.language import article, pick, plural, sentence
from recipes.demo.draw.scene_geometry import (
    DIRECTIONS,
    focus_first,
    grouped,
    is_clear,
    is_out,
    place_of,
    reference,
)
from recipes.demo.draw.scenes import NOUNS, Scene
from recipes.demo.draw.shapes import COLOURS, SCENE_SHAPES

Turn = tuple[str, str]
CAPTION_QUESTIONS = (
    "describe the picture.",
    "describe the image.",
    "what does the picture show?",
    "describe this picture.",
)
LIST_QUESTIONS = ("what is in the picture?", "what objects are in the picture?", "what do you see?")


def caption(rng: np.random.Generator, scene: Scene) -> Turn | None:
    """Describes the whole scene."""
    things = scene.things
    text = grouped(things)
    if len(things) == 2 and things[0].phrase != things[1].phrase:
        first, second = sorted(things, key=lambda thing: thing.x)
        if is_clear(first, second, "left"):
            text = f"{article(first.phrase)} to the left of {article(second.phrase)}"
        else:
            top, low = sorted(things, key=lambda thing: thing.y)
            if is_clear(top, low, "above"):
                text = f"{article(top.phrase)} above {article(low.phrase)}"
    return pick(rng, CAPTION_QUESTIONS), sentence(text)


def contents(rng: np.random.Generator, scene: Scene) -> Turn | None:
    """Lists the objects."""
    return pick(rng, LIST_QUESTIONS), grouped(scene.things)


def colour(rng: np.random.Generator, scene: Scene) -> Turn | None:
    """Asks for the colour of a shape that is there once."""
    for i in focus_first(rng, scene):
        thing = scene.things[i]
        if thing.colour and sum(other.name == thing.name for other in scene.things) == 1:
            forms = (
                "what color is the {}?",
                "what colour is the {}?",
                "what is the color of the {}?",
            )
            return pick(rng, forms).format(thing.name), thing.colour
    return None


def shape_of_colour(rng: np.random.Generator, scene: Scene) -> Turn | None:
    """Asks which shape has a colour."""
    shapes = [thing for thing in scene.things if thing.colour]
    for i in focus_first(rng, scene):
        thing = scene.things[i]
        if thing.colour and sum(other.colour == thing.colour for other in shapes) == 1:
            forms = ("what is the {} shape?", "which shape is {}?")
            return pick(rng, forms).format(thing.colour), thing.name
    return None


def how_many(rng: np.random.Generator, scene: Scene) -> Turn | None:
    """Counts one kind of object, or the objects of one colour, or all."""
    things = scene.things
    if rng.random() < 0.3:
        forms = ("how many objects are there?", "how many things are in the picture?")
        return pick(rng, forms), str(len(things))
    names = [word for thing in things for word in (thing.name, thing.phrase)]
    counts = {word: sum(word in (t.name, t.phrase) for t in things) for word in names}
    repeated = [name for name in names if counts[name] > 1]
    if repeated and rng.random() < 0.6:
        names = repeated
    word = _absent(rng, scene) if rng.random() < 0.12 else pick(rng, names)
    many = counts.get(word, 0)
    ways = ("how many {} are there?", "how many {} are in the picture?", "how many {} do you see?")
    return pick(rng, ways).format(plural(word)), str(many)


def _absent(rng: np.random.Generator, scene: Scene) -> str:
    """Returns words for something that is not there, often nearly the same as what is."""
    present = {word for thing in scene.things for word in (thing.name, thing.phrase)}
    seen = [thing for thing in scene.things if thing.colour]
    while True:
        shape, tone = pick(rng, SCENE_SHAPES), pick(rng, tuple(COLOURS))
        style = rng.random()
        if seen and style < 0.35:
            near = seen[int(rng.integers(len(seen)))]
            word = f"{tone} {near.name}" if style < 0.18 else f"{near.colour} {shape}"
        elif style < 0.7:
            word = pick(rng, NOUNS)
        else:
            word = shape if style < 0.85 else f"{tone} {shape}"
        if word not in present:
            return word


def is_there(rng: np.random.Generator, scene: Scene) -> Turn | None:
    """Asks whether something is there; yes as often as no."""
    forms = ("is there {} in the picture?", "is there {}?", "do you see {}?", "can you see {}?")
    if rng.random() < 0.5:
        return pick(rng, forms).format(article(_absent(rng, scene))), "no"
    thing = scene.things[focus_first(rng, scene)[0]]
    word = thing.phrase if rng.random() < 0.6 else thing.name
    return pick(rng, forms).format(article(word)), "yes"


def beside(rng: np.random.Generator, scene: Scene) -> Turn | None:
    """Asks what is on one side of an object: exactly one thing, clearly."""
    for i in focus_first(rng, scene):
        anchor = scene.things[i]
        name = reference(rng, scene, anchor)
        others = [thing for k, thing in enumerate(scene.things) if k != i]
        if name is None or not others:
            continue
        for direction in rng.permutation(list(DIRECTIONS)):
            there = [thing for thing in others if is_clear(thing, anchor, direction)]
            if len(there) != 1:
                continue
            if all(is_out(t, anchor, direction) for t in others if t is not there[0]):
                words = pick(rng, DIRECTIONS[direction])
                return f"what is {words} the {name}?", there[0].phrase
    return None


def is_beside(rng: np.random.Generator, scene: Scene) -> Turn | None:
    """Asks whether one object is on one side of another; yes as often as no."""
    order = focus_first(rng, scene)
    pairs = [(i, j) for i in order for j in order if i != j]
    for i, j in pairs:
        a, b = scene.things[i], scene.things[j]
        first, second = reference(rng, scene, a), reference(rng, scene, b)
        if first is None or second is None:
            continue
        for direction in DIRECTIONS:
            if is_clear(a, b, direction):
                truth = bool(rng.random() < 0.5)
                opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}
                words = pick(rng, DIRECTIONS[direction if truth else opposite[direction]])
                return f"is the {first} {words} the {second}?", "yes" if truth else "no"
    return None


def bigger(rng: np.random.Generator, scene: Scene) -> Turn | None:
    """Asks which of two objects is bigger or smaller."""
    order = focus_first(rng, scene)
    for i in order:
        for j in order:
            a, b = scene.things[i], scene.things[j]
            if i == j or a.size < 1.35 * b.size:
                continue
            big, small = reference(rng, scene, a), reference(rng, scene, b)
            if big is None or small is None:
                continue
            first, second = (big, small) if rng.random() < 0.5 else (small, big)
            if rng.random() < 0.6:
                return f"which is bigger, the {first} or the {second}?", big
            return f"which is smaller, the {first} or the {second}?", small
    return None


def where(rng: np.random.Generator, scene: Scene) -> Turn | None:
    """Asks where an object is, on a 3 x 3 grid."""
    for i in focus_first(rng, scene):
        name, place = reference(rng, scene, scene.things[i]), place_of(scene.things[i])
        if name is not None and place is not None:
            return pick(rng, ("where is the {}?", "where in the picture is the {}?")).format(
                name
            ), place
    return None


def what_is_at(rng: np.random.Generator, scene: Scene) -> Turn | None:
    """Asks what is in one place of the 3 x 3 grid."""
    places = [place_of(thing) for thing in scene.things]
    if None in places:
        return None
    for i in focus_first(rng, scene):
        place = places[i]
        if places.count(place) == 1:
            side = "in the" if place == "center" or " " in str(place) else "on the"
            if place in ("top", "bottom"):
                side = "at the"
            return f"what is {side} {place}?", scene.things[i].phrase
    return None


ASKERS: dict[str, tuple[Callable[[np.random.Generator, Scene], Turn | None], float]] = {
    "caption": (caption, 1.2),
    "list": (contents, 1.0),
    "colour": (colour, 1.2),
    "shape": (shape_of_colour, 0.5),
    "count": (how_many, 1.5),
    "exists": (is_there, 1.3),
    "beside": (beside, 2.4),
    "is_beside": (is_beside, 1.0),
    "bigger": (bigger, 2.2),
    "where": (where, 1.2),
    "what_at": (what_is_at, 0.7),
}
OPEN_TYPES = ("caption", "list")
_NAMES = list(ASKERS)
SHARES = np.array([weight for _, weight in ASKERS.values()])
LOOKUPS = {"where": 4.0, "exists": 2.4, "is_beside": 2.4, "bigger": 2.4, "colour": 1.8}
"""Questions whose answer is found at the object they name, and their weight in training."""


def training_shares() -> np.ndarray:
    """Returns float[types]: `ASKERS`' weights with those of look-ups raised, captions halved."""
    weights = {name: weight for name, (_, weight) in ASKERS.items()} | LOOKUPS
    return np.array([weights[n] / (2 if n in OPEN_TYPES else 1) for n in _NAMES])


def scene_turns(
    rng: np.random.Generator, scene: Scene, count: int, shares: np.ndarray = SHARES
) -> list[tuple[str, str, str]]:
    """Returns up to `count` (type, question, answer), each of another type."""
    order = rng.choice(len(_NAMES), len(_NAMES), replace=False, p=shares / shares.sum())
    turns: list[tuple[str, str, str]] = []
    for i in order:
        name = _NAMES[int(i)]
        asked = ASKERS[name][0](rng, scene)
        if asked is not None:
            turns.append((name, *asked))
        if len(turns) == count:
            break
    return turns
