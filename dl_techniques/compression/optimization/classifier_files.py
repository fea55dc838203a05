"""LiteRT files of a classifier and its descendants: written, and measured."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dl_techniques.compression.optimization.measure import LiteRTClassifier, accuracy
from dl_techniques.compression.optimization.recipe import Recipe
from dl_techniques.data.labelled import HELD_OUT, Labelled, read_labelled
from dl_techniques.data.preprocessing import BYTES, UNIT, pixel_range
from dl_techniques.errors import CompressionError

if TYPE_CHECKING:
    import keras

SUFFIX = ".tflite"


@dataclass(frozen=True)
class Measured:
    """One file in its runtime.

    Attributes:
        bytes: of the file, or of all files of a folder.
        parameters: of the Keras model.
        milliseconds: median time with one thread of one picture, or of the first token of an
            answer about one picture; None for a vision-language model without questions.
        accuracy: on the held-out pictures, or exact match on all questions; None without data.
    """

    bytes: int
    parameters: int
    milliseconds: float | None
    accuracy: float | None


def check_classifier(model: keras.Model, recipe: Recipe) -> None:
    """Refuses what is no classifier, or cannot be written as one.

    Raises:
        CompressionError: says which.
    """
    if not getattr(model, "include_top", False) or not model.num_classes:
        raise CompressionError(f"{model.name} has no classes; optimize takes classifiers")
    if recipe.export.format != "litert":
        raise CompressionError(
            f"a classifier is written as litert, got export.format {recipe.export.format}; for "
            "other formats save the network and use fastvlm export"
        )


class Files:
    """Writes LiteRT files of one classifier and its descendants, and measures them.

    Args:
        model: the classifier.
        recipe: its precision and picture size.
        data: folder of class folders, or None.

    Raises:
        CompressionError: a step needs data and there is none, or a size that cannot be.
    """

    def __init__(self, model: keras.Model, recipe: Recipe, data: Path | None) -> None:
        if data is None and (recipe.trains or recipe.precision == "int8_static"):
            raise CompressionError(
                "this recipe needs pictures (training or static int8); name a folder of class "
                "folders with --data"
            )
        self.model, self.recipe, self.data = model, recipe, data
        self.side = side_of(model, recipe.export.image_size)

    def read(
        self, limit: int | None, say: Callable[[str], None]
    ) -> tuple[Labelled | None, Labelled | None]:
        """The pictures to train on and to measure on; None without data."""
        if self.data is None:
            return None, None
        say(f"reading {self.data}")
        preprocessing = dataclasses.replace(self.model.preprocessing, size=self.side)
        train, held_out = read_labelled(self.data, preprocessing, limit)
        if len(train.classes) != self.model.num_classes:
            raise CompressionError(
                f"{self.data} has {len(train.classes)} class folders, {self.model.name} has "
                f"{self.model.num_classes} classes; they must be the same, in sorted order"
            )
        return train, held_out

    def write(
        self, network: keras.Model, path: Path, *, overwrite: bool = False
    ) -> tuple[str, ...]:
        """Exports in the recipe's precision; returns the notes of the export."""
        # A network that was trained with rounding has its precision in itself.
        aware = self.recipe.quantization_aware is not None
        return self._export(network, path, None if aware else self.recipe.precision, overwrite)

    def _export(
        self, network: keras.Model, path: Path, precision: str | None, overwrite: bool = False
    ) -> tuple[str, ...]:
        from dl_techniques.export import export_model

        quantize = self.recipe.quantize
        own = quantize if precision not in (None, "float32") else None
        report = export_model(
            network, path, "litert", part="classifier", image_size=self.side, precision=precision,
            pictures=self._folder(HELD_OUT),
            calibration=self._folder(("train",)) if precision == "int8_static" else None,
            overwrite=overwrite,
            block_size=own.block_size if own else None,
            skip=(own.skip or None) if own else None,
        )  # fmt: skip
        return report.notes

    def _folder(self, names: tuple[str, ...]) -> Path | None:
        """A folder of pictures: one of the splits, or all."""
        if self.data is None:
            return None
        found = [self.data / name for name in names if (self.data / name).is_dir()]
        return found[0] if found else self.data

    def measure_float(self, network: keras.Model, held_out: Labelled | None) -> Measured:
        """A network in float32, from a file that is thrown away."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"before{SUFFIX}"
            self._export(network, path, "float32")
            return self.measure(path, network, held_out)

    def size(self, network: keras.Model) -> int:
        """Bytes that a network takes in the recipe's precision."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"size{SUFFIX}"
            self.write(network, path)
            return path.stat().st_size

    def measure(self, path: Path, network: keras.Model, held_out: Labelled | None) -> Measured:
        """Size, speed and accuracy of a file, whose pixels lie in the network's own range."""
        runner, found = LiteRTClassifier(path), None
        if held_out is not None:
            largest = 1.0 if pixel_range(network) == BYTES else 255.0
            logits = runner.predict(p.astype("float32") / largest for p in held_out.pictures)
            found = accuracy(logits, held_out.labels)
        parameters = int(network.count_params())
        return Measured(path.stat().st_size, parameters, runner.milliseconds(), found)


def chance_notes(model: keras.Model, found: float | None, held_out: Labelled) -> tuple[str, ...]:
    """Warns where a classifier is no better than guessing: then its pixels or classes are others.

    Args:
        model: the classifier.
        found: its accuracy.
        held_out: the pictures that it was measured on.
    """
    number = len(held_out.labels)
    # A guess of the commonest class, and two standard errors of that.
    guess = float(np.bincount(held_out.labels).max() / number)
    limit = guess + 2 * math.sqrt(guess * (1 - guess) / number)
    if found is None or found > limit:
        return ()
    other = UNIT if pixel_range(model) == BYTES else BYTES
    return (
        f"before: {100 * found:.2f} % of {number} pictures is no more than guessing may give (the "
        f"commonest class: {100 * guess:.2f} %). {model.name} was given pixels in "
        f"{pixel_range(model)}; was it trained on {other} (make it with include_preprocessing="
        f"{not model.include_preprocessing}), on classes in another order, or not at all?",
    )


def side_of(model: keras.Model, image_size: int | None) -> int:
    """The side of the pictures, in pixels.

    Raises:
        CompressionError: the network takes pictures of another size, or no squares.
    """
    height, width = model.image_shape[:2]
    if height != width:
        raise CompressionError(
            f"{model.name} takes {height} x {width} pixels; optimize reads square pictures"
        )
    if image_size is not None and height is not None and image_size != height:
        raise CompressionError(
            f"{model.name} takes {height} x {height} pixels, got export.image_size {image_size}"
        )
    return int(image_size or height or model.preprocessing.size)
