"""Targets for the supervised pretraining of the encoder: names, a grid of objects, letters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tools.demo_model.emoji_labels import NUM_LABELS
from tools.demo_model.scenes import GRID, Thing
from tools.demo_model.shapes import SHAPES, colour_id
from tools.demo_model.words import MAX_LETTERS, letter_ids

# classes of `cells`: emoji labels, then shapes, then "nothing here"
NOTHING = NUM_LABELS + len(SHAPES)
NUM_CELL_CLASSES = NOTHING + 1
IGNORED = -1


def empty_targets() -> dict[str, np.ndarray]:
    """Returns targets with nothing to be learnt."""
    shapes = {"name": (), "cells": (GRID, GRID), "colour": (GRID, GRID), "clothing": ()}
    shapes["word"] = (MAX_LETTERS,)
    return {key: np.full(shape, IGNORED, np.int32) for key, shape in shapes.items()}


def make_targets(
    kind: str, fact: Any, label_ids: Mapping[str, int], things: tuple[Thing, ...] = ()
) -> dict[str, np.ndarray]:
    """Returns the targets of one picture.

    Args:
        kind: the kind of picture.
        fact: what is known about it: an EmojiLabel, a word, a clothing class, a Scene.
        label_ids: the emoji number of each noun of the scenes.
        things: the objects of an easy-VQA picture; none when they are not known.
    """
    targets = empty_targets()
    if kind == "emoji":
        targets["name"][...] = fact.index
    elif kind == "words":
        targets["word"][...] = letter_ids(fact)
    elif kind == "clothing":
        targets["clothing"][...] = fact
    else:
        mark_cells(targets, fact.things if kind == "scenes" else things, label_ids)
    return targets


def mark_cells(
    targets: dict[str, np.ndarray], things: tuple[Thing, ...], label_ids: Mapping[str, int]
) -> None:
    """Writes objects and colours into the cells where the objects' centres are."""
    if not things:
        return
    targets["cells"][...] = NOTHING
    for thing in things:
        if thing.colour is None and thing.name in label_ids:
            number = label_ids[thing.name]
        else:
            number = NUM_LABELS + SHAPES.index(thing.name)
        targets["cells"][thing.cell] = number
        if thing.colour is not None:
            targets["colour"][thing.cell] = colour_id(thing.colour)
