"""A trained encoder learns to read smaller print, and goes on to see other pictures as before.

Small letters are lost in the first stages, so these are trained first, alone, at twice the
pictures a second, then the whole encoder. Each batch is words, with the letters as targets, and
other pictures, on which the map is to stay what the encoder made of them before. No labels are
needed for those, and what a decoder has learnt to make of the map stays true.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques import FastVLM
from dl_techniques.training import Stage, StageSettings
from recipes.demo.draw.pretrain_labels import SHAPE_OF
from recipes.demo.draw.records import DemoData
from recipes.demo.stages.pretrain import (
    CLASSES,
    LOSS_WEIGHTS,
    LabelledPictures,
    MaskedCrossentropy,
    as_floats,
    target_weights,
)

# which heads read the map before the last stage, which the last one's
EARLY_HEADS, LAST_HEADS = ("strokes",), ("letters", "spelling")
EPOCH_STEPS = 20


HEAD_STEPS = 120


@dataclass(frozen=True)
class Reading:
    """What the stage teaches.

    Attributes:
        whole: the whole encoder, or all stages but the last.
        words: how many pictures of a batch are words.
        kept: weight of the other pictures' maps.
    """

    whole: bool = True
    words: int = 88
    kept: float = 4.0


class WordsAndOthers(LabelledPictures):
    """Batches of so many words, then other pictures: uint8[B, S, S, 3] and the words' targets.

    Args:
        data: the recipe's pictures; its mix is that of the others, words left out.
        batch_size: pictures of a batch.
        words: how many of them are words.
        heads: which targets.
        seed: of the whole run.
    """

    def __init__(
        self, data: DemoData, batch_size: int, words: int, heads: tuple[str, ...], seed: int = 0
    ) -> None:
        super().__init__(data, batch_size, EPOCH_STEPS, seed=seed)
        self.words, self.heads = words, heads

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
        """One batch of any epoch."""
        start = (epoch * self.steps + index) * self.batch_size
        kinds = [
            "words" if row < self.words else self.data.kind_at(start + row, self.seed)
            for row in range(self.batch_size)
        ]
        drawn = [
            self.data.make_labelled(kind, "train", start + row, self.seed)
            for row, kind in enumerate(kinds)
        ]
        told = [targets for _, targets in drawn[: self.words]]
        targets = {key: np.stack([t[key] for t in told]) for key in self.heads}
        weights = {key: target_weights(key, target) for key, target in targets.items()}
        targets["kept"], weights["kept"] = np.zeros((1, 1)), np.ones(1)
        return np.stack([image for image, _ in drawn]), targets, weights


class Rows(keras.layers.Layer):
    """Some rows of a batch."""

    def __init__(self, start: int, stop: int | None) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def call(self, inputs: Any) -> Any:
        """Takes them."""
        return inputs[self.start : self.stop]

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """How many rows depends on the batch."""
        return (None, *shape[1:])


class Untracked(keras.layers.Layer):
    """A model that is no part of the one it is called in.

    On PyTorch Keras finds the gradients that it sets to zero by the variables' paths. Those of an
    encoder and its copy are the same, so that one's would be added up from step to step.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__(name="before")
        self.mapped = lambda inputs: ops.stop_gradient(model(inputs, training=False))
        self.map_shape = model.output_shape[1:]

    def call(self, inputs: Any) -> Any:
        """What the model makes of it; no gradients."""
        return self.mapped(inputs)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The model's."""
        return (shape[0], *self.map_shape)


class Heads:
    """Linear layers that tell letters from standardized rows or maps.

    Args:
        keys: of the targets.
        example: the rows or maps that get mean 0 and variance 1.
    """

    def __init__(self, keys: tuple[str, ...], example: Any) -> None:
        self.mean, self.spread = _moments(example)
        self.shapes = {key: (*SHAPE_OF[key], CLASSES[key]) for key in keys}
        self.layers = {
            key: keras.layers.Dense(math.prod(shape[2:]), name=f"{key}_dense")
            for key, shape in self.shapes.items()
        }

    def __call__(self, features: Any) -> dict[str, Any]:
        """Logits by target."""
        standard = ops.divide(ops.subtract(features, self.mean), self.spread)
        return {
            key: keras.layers.Reshape(shape, name=key)(self.layers[key](standard))
            for key, shape in self.shapes.items()
        }


class MeanSquare(keras.losses.Loss):
    """Mean square of an output that should be zero."""

    def __init__(self, name: str = "mean_square") -> None:
        super().__init__(reduction=None, name=name)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Looks at neither targets nor weights."""
        return ops.mean(ops.square(ops.cast(y_pred, "float32")))


def build(
    encoder: FastVLM, before: FastVLM, images: np.ndarray, words: int, whole: bool
) -> keras.Model:
    """The encoder, or its first stages, with linear heads for letters, and what is to be kept.

    Args:
        encoder: to be trained.
        before: the encoder as it was.
        images: float32[N, S, S, 3]; the heads see the maps with mean 0 and variance 1 over these.
        words: rows of a batch that are words.
        whole: the whole encoder, or all stages but the last.
    """
    stages = encoder.stages[-2:] if whole else encoder.stages[-2:-1]
    taps = keras.Model(encoder.input, [stage.output for stage in stages], name="taps")
    kept = Untracked(keras.Model(before.input, before.stages[-1 if whole else -2].output))
    pictures = keras.Input(encoder.input_shape[1:], dtype="uint8", name="pictures")
    floats = keras.layers.Rescaling(1 / 255)(pictures)
    seen, examples = taps(floats), taps(images)
    outputs = {}
    words_of = Rows(0, words)
    for keys, features, example in zip((EARLY_HEADS, LAST_HEADS), seen, examples, strict=False):
        outputs |= Heads(keys, example)(words_of(features))
    spread, others = _moments(kept(images))[1], Rows(words, None)
    stray = ops.subtract(others(seen[-1]), kept(others(floats)))
    outputs["kept"] = keras.layers.Identity(name="kept")(ops.divide(stray, spread))
    return keras.Model(pictures, outputs, name="reading")


def _moments(features: Any) -> tuple[np.ndarray, np.ndarray]:
    values = ops.convert_to_numpy(features)
    return values.mean((0, 1, 2)), values.std((0, 1, 2)) + 1e-3


def losses(model: keras.Model, kept: float) -> dict[str, Any]:
    """Every output's loss and weight, and the letters' accuracy, for `compile`."""
    heads = [key for key in model.output if key != "kept"]
    return {
        "loss": {**{key: MaskedCrossentropy(0.05) for key in heads}, "kept": MeanSquare()},
        "loss_weights": {**{key: LOSS_WEIGHTS[key] for key in heads}, "kept": kept},
        "weighted_metrics": {key: ["sparse_categorical_accuracy"] for key in heads},
    }


def copy_of(encoder: FastVLM) -> FastVLM:
    """The encoder as it is now."""
    before = FastVLM.from_config(encoder.get_config())
    before.set_weights(encoder.get_weights())
    return before


def read(
    encoder: FastVLM,
    before: FastVLM,
    data: DemoData,
    reading: Reading,
    settings: StageSettings,
    folder: Path,
) -> None:
    """Teaches an encoder to read, fresh heads first; goes on after a kill.

    Args:
        encoder: to be trained, in any form that trains; it is changed.
        before: what is to be kept of other pictures, the encoder as it was.
        data: the recipe's pictures; the mix is that of the other pictures.
        reading: what is taught.
        settings: of the stage.
        folder: of the training.
    """
    heads = EARLY_HEADS + LAST_HEADS if reading.whole else EARLY_HEADS
    batches = WordsAndOthers(data, settings.batch_size, reading.words, heads, settings.seed)
    images = as_floats(batches.batch(9999, 0)[0])
    model = build(encoder, before, images, reading.words, reading.whole)
    compiling = losses(model, reading.kept)
    encoder.trainable = False
    fit_heads(model, batches, compiling, folder / "heads")
    encoder.trainable = True
    dense = tuple(f"{head}_dense" for head in heads)
    settings.train(folder, model, batches, heads=dense, compiling=compiling, preload=[__name__])


def fit_heads(
    model: keras.Model, batches: WordsAndOthers, compiling: dict[str, Any], folder: Path
) -> None:
    """Fits fresh heads to what does not learn yet."""
    adam = keras.optimizers.Adam(3e-3)
    Stage(model, batches, adam, steps=HEAD_STEPS, compiling=compiling, verbose=2).run(folder)
