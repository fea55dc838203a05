"""What the frozen towers see, computed once and kept: the learning that follows needs no picture.

A picture is brought to the towers' size as the image converter does it, whole on black; the first
tower's smaller one is made by the same two products as inside the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from dl_techniques.data.geometry import pad_and_resize
from dl_techniques.layers.picture_resize import PictureResize

BATCH = 32


class Looker:
    """Shows pictures to both towers.

    Args:
        first: float[B, s, s, 3] in [0, 1] -> float[B, h, w, C].
        second: float[B, S, S, 3], scaled by its own rule -> float[B, m, n, D].
    """

    def __init__(self, first: keras.Model, second: keras.Model) -> None:
        self.first, self.second = first, second
        self.size = int(second.input_shape[1])
        self.shrink = PictureResize(first.input_shape[1:3])
        rule = second.picture_rule((self.size, self.size))
        self.mean, self.std = (np.asarray(v, "float32") for v in (rule.mean, rule.std))

    def maps(self, pictures: Iterable[Any]) -> np.ndarray:
        """The first tower's rows: float16[n, h * w, C]."""
        found = []
        for batch in self._batches(pictures):
            seen = keras.ops.convert_to_numpy(self.first(self.shrink(batch)))
            found.append(seen.reshape(len(seen), -1, seen.shape[-1]).astype("float16"))
        return np.concatenate(found)

    def means(self, pictures: Iterable[Any]) -> np.ndarray:
        """The second tower's averaged map: float16[n, D]."""
        found = []
        for batch in self._batches(pictures):
            seen = keras.ops.convert_to_numpy(self.second((batch - self.mean) / self.std))
            found.append(seen.mean((1, 2)).astype("float16"))
        return np.concatenate(found)

    def _batches(self, pictures: Iterable[Any]) -> Iterator[np.ndarray]:
        left = iter(pictures)
        while batch := list(islice(left, BATCH)):
            shown = [pad_and_resize(np.asarray(picture), self.size) for picture in batch]
            yield np.stack(shown).astype("float32") / np.float32(255)


def mirrored(pictures: Iterable[Image.Image]) -> Iterator[Image.Image]:
    """Each picture from left to right."""
    for picture in pictures:
        yield picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def noises(rng: np.random.Generator, count: int, size: int) -> Iterator[np.ndarray]:
    """Pictures of nothing: dots, one colour, clouds, gradients; uint8[size, size, 3]."""
    for index in range(count):
        colour, other = rng.integers(0, 256, (2, 3)).astype("float64")
        kind = index % 4
        if kind == 0:
            made = colour + rng.normal(0, rng.uniform(0, 80), (size, size, 3))
        elif kind == 1:
            made = rng.integers(0, 256, (size, size, 3)).astype("float64")
        elif kind == 2:
            side = int(rng.choice([2, 4, 8, 16, 32]))
            dots = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
            made = np.asarray(dots.resize((size, size), Image.Resampling.BICUBIC), "float64")
        else:
            way = np.linspace(0, 1, size)[:, None, None]
            made = np.broadcast_to((1 - way) * colour + way * other, (size, size, 3))
            made = made if rng.random() < 0.5 else made.transpose(1, 0, 2)
        yield np.clip(made, 0, 255).astype("uint8")


def kept(path: Path, **make: Any) -> dict[str, np.ndarray]:
    """Arrays of a file; made and written whole where there is none yet.

    Args:
        path: ends in `.npz`.
        **make: name -> function that makes the array.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **{name: function() for name, function in make.items()})
        partial.replace(path)
    with np.load(path) as file:
        return dict(file)
