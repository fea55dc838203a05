"""Targets for the supervised pretraining of the encoder: names, objects and letters in a grid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recipes.demo.draw.emoji_labels import NUM_LABELS
from recipes.demo.draw.scenes import GRID, Thing
from recipes.demo.draw.shapes import SHAPES, colour_id
from recipes.demo.draw.words import MAX_LETTERS, WordPicture, letter_ids

# classes of `cells`: emoji labels, then shapes, then "nothing here"
NOTHING = NUM_LABELS + len(SHAPES)
NUM_CELL_CLASSES = NOTHING + 1
IGNORED = -1
# steps of an object's centre in each direction, and of its size from 0.2 to 0.72 of the side
PLACES, SIZES = 12, 8
# columns of a cell, each a share of the width in which at most one letter is centred
COLUMNS = 4
SHAPE_OF = {
    "name": (),
    "clothing": (),
    "cells": (GRID, GRID),
    "colour": (GRID, GRID),
    "x": (GRID, GRID),
    "y": (GRID, GRID),
    "size": (GRID, GRID),
    "strokes": (2 * GRID, 2 * GRID, COLUMNS // 2),
    "letters": (GRID, GRID, COLUMNS),
    "spelling": (GRID, GRID, MAX_LETTERS),
}


def empty_targets() -> dict[str, np.ndarray]:
    """Returns targets with nothing to be learnt."""
    return {key: np.full(shape, IGNORED, np.int32) for key, shape in SHAPE_OF.items()}


def make_targets(
    kind: str, fact: Any, label_ids: Mapping[str, int], things: tuple[Thing, ...] = ()
) -> dict[str, np.ndarray]:
    """Returns the targets of one picture.

    Args:
        kind: the kind of picture.
        fact: what is known about it: an EmojiLabel, a WordPicture, a clothing class, a Scene.
        label_ids: the emoji number of each noun of the scenes.
        things: the objects of an easy-VQA picture; none when they are not known.
    """
    targets = empty_targets()
    if kind == "emoji":
        targets["name"][...] = fact.index
    elif kind == "words":
        mark_letters(targets, fact)
    elif kind == "clothing":
        targets["clothing"][...] = fact
    else:
        mark_cells(targets, fact.things if kind == "scenes" else things, label_ids)
    return targets


def mark_cells(
    targets: dict[str, np.ndarray], things: tuple[Thing, ...], label_ids: Mapping[str, int]
) -> None:
    """Writes objects, colours, places and sizes into the cells where the objects' centres are."""
    if not things:
        return
    targets["cells"][...] = NOTHING
    for thing in things:
        if thing.colour is None and thing.name in label_ids:
            number = label_ids[thing.name]
        else:
            number = NUM_LABELS + SHAPES.index(thing.name)
        targets["cells"][thing.cell] = number
        targets["x"][thing.cell] = _step(thing.x, 0, 1, PLACES)
        targets["y"][thing.cell] = _step(thing.y, 0, 1, PLACES)
        targets["size"][thing.cell] = _step(thing.size, 0.2, 0.72, SIZES)
        if thing.colour is not None:
            targets["colour"][thing.cell] = colour_id(thing.colour)


def mark_letters(targets: dict[str, np.ndarray], made: WordPicture) -> None:
    """Writes each letter where its centre is: by column, and by its number in the word."""
    for key in ("strokes", "letters", "spelling"):
        targets[key][...] = 0
    for number, (letter, (x, y)) in enumerate(
        zip(letter_ids(made.word), made.centres, strict=False)
    ):
        column = _step(x, 0, 1, GRID * COLUMNS)
        cell = _step(y, 0, 1, GRID), column // COLUMNS
        half = COLUMNS // 2
        fine = _step(y, 0, 1, 2 * GRID), column // half, column % half
        targets["strokes"][fine] = letter
        targets["letters"][(*cell, column % COLUMNS)] = letter
        targets["spelling"][(*cell, number)] = letter


def _step(value: float, low: float, high: float, steps: int) -> int:
    """The number of the step, out of so many between two values, in which a value lies."""
    return int(np.clip((value - low) / (high - low) * steps, 0, steps - 1))
