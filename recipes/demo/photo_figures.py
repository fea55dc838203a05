"""What name tags know of validation photographs, before any decoder says it.

    python -m recipes.demo.photo_figures --tags WORK/photographs/tags/preset --photos PHOTOS

The preset is a `Towers` with tags, or a whole model with such an encoder. A line a set: right
names (an accepted one), the share that would be said plainly and how much of that is right, hedged
and refused shares; then calibration error and the ranking of known pictures above the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from dl_techniques import Towers
from dl_techniques.data.geometry import pad_and_resize
from dl_techniques.evaluation.calibration import auroc, calibration_error
from recipes.demo.photos.names import accepted_names
from recipes.demo.photos.readers import Photo, read_photos
from recipes.demo.photos.templates import HEDGED, PLAIN
from recipes.demo.stages.seeing import BATCH

SETS = ("caltech", "grocery", "clothing")
UNKNOWN = "background"


@dataclass(frozen=True)
class Told:
    """Of a set: the certainty of each best name, and whether it is right."""

    certainty: np.ndarray
    right: np.ndarray

    def line(self, name: str) -> str:
        """The figures, in per cent."""
        plain, refused = self.certainty >= PLAIN, self.certainty < HEDGED
        hits = self.right[plain].mean() if plain.any() else float("nan")
        shares = (self.right.mean(), plain.mean(), hits, (~plain & ~refused).mean(), refused.mean())
        cells = "".join(f"{100 * share:9.1f}" for share in shares)
        return f"{name:12s}{len(self.right):6d}{cells}"


def look(towers: Towers, photos: Iterator[Photo]) -> Told:
    """The best name of each photograph."""
    side = towers.input_size[0]
    certainty, right = [], []
    while batch := list(islice(photos, BATCH)):
        shown = np.stack([pad_and_resize(np.asarray(photo.load()), side) for photo in batch])
        best = towers.names_of(shown.astype("float32") / np.float32(255), 1)
        for photo, ((name, chance),) in zip(batch, best, strict=True):
            certainty.append(chance)
            right.append(bool(photo.label) and name in accepted_names(photo.set, photo.label))
    return Told(np.array(certainty), np.array(right))


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tags", type=Path, required=True, help="the preset with the tags")
    parser.add_argument("--photos", type=Path, required=True, help="the folder of photographs")
    options = parser.parse_args(arguments)
    towers = Towers.from_preset(options.tags)
    heads = ("right", "plain", "of these", "hedged", "refused")
    print(f"{'set':12s}{'n':>6s}" + "".join(f"{head:>9s}" for head in heads))
    told = {}
    for name in (*SETS, UNKNOWN):
        told[name] = look(towers, read_photos(options.photos, name, "validation"))
        print(told[name].line(name))
    known = np.concatenate([told[name].certainty for name in SETS])
    hits = np.concatenate([told[name].right for name in SETS])
    apart = auroc(list(known), list(told[UNKNOWN].certainty))
    print(f"calibration error {100 * calibration_error(list(known), list(hits)):.1f} %")
    print(f"known above {UNKNOWN} in {100 * apart:.1f} % of pairs")


if __name__ == "__main__":
    main()
