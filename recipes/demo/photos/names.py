"""What the things on photographs are called: one everyday name each, and what else is right.

`imagenet_names.tsv` has an everyday name for each of ImageNet's 1 000 classes, in the order of the
classifiers; `classes.tsv` one for each class of the sets of photographs, with further accepted
names. Where both speak of the same thing, they use the same name.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from recipes.demo.draw.language import plural
from recipes.demo.photos.articles import MASS, PLURAL

FOLDER = Path(__file__).parent
IMAGENET = FOLDER / "imagenet_names.tsv"
CLASSES = FOLDER / "classes.tsv"

PEOPLE = frozenset({"face", "baseball player", "groom", "scuba diver"})
"""Names of what is a person, or part of one: where one is right, a person is there."""

FIGURES = frozenset({"buddha", "snoopy", "garfield"})
"""Names of figures, of which people would quarrel whether a person is there."""

_MANY = {
    "goose": "geese", "sheep": "sheep", "man": "men", "woman": "women", "child": "children",
    "person": "people", "people": "people", "somebody": "people", "someone": "people",
    "knife": "knives", "wolf": "wolves", "tomato": "tomatoes", "potato": "potatoes",
    "mango": "mangoes", "trousers": "trousers", "earphones": "earphones", "aircraft": "aircraft",
}  # fmt: skip
"""Plurals that are not told by the ending."""


@cache
def imagenet_names() -> tuple[str, ...]:
    """The everyday name of each of the 1 000 ImageNet classes, in the order of the classifiers.

    Example:
        >>> imagenet_names()[207], len(imagenet_names())
        ('dog', 1000)
    """
    return tuple(row["everyday name"] for row in _rows(IMAGENET))


@cache
def class_names() -> dict[tuple[str, str], str]:
    """(set, class as the archive spells it) -> everyday name.

    Example:
        >>> class_names()["caltech", "airplanes"]
        'airplane'
    """
    return {(row["set"], row["class"]): row["name"] for row in _rows(CLASSES)}


@cache
def accepted_names(set_name: str, label: str) -> tuple[str, ...]:
    """All names that are right for a class: the everyday one first, then others; plurals of each.

    Raises:
        ValueError: the class is unknown.

    Example:
        >>> accepted_names("caltech", "car_side")
        ('car', 'cars')
    """
    for row in _rows(CLASSES):
        if (row["set"], row["class"]) == (set_name, label):
            names = [row["name"], *filter(None, row["accepted"].split("|"))]
            return tuple(dict.fromkeys([*names, *(many(name) for name in names)]))
    raise ValueError(f"{set_name} has no class {label!r} in {CLASSES.name}: add it with its name")


def many(name: str) -> str:
    """The plural of a name, or the name where it is one or has none.

    Example:
        >>> many("knife"), many("scissors"), many("milk")
        ('knives', 'scissors', 'milk')
    """
    head, space, last = name.rpartition(" ")
    if last in _MANY:
        return f"{head}{space}{_MANY[last]}"
    return name if name in PLURAL | MASS else plural(name)


@cache
def all_names() -> tuple[str, ...]:
    """Every everyday name once: ImageNet's in the order of their first class, then the others."""
    return tuple(dict.fromkeys((*imagenet_names(), *class_names().values())))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
