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
from tools.demo_model.deadline import ENDLESS, Deadline
from tools.demo_model.drawn_ahead import IN_PLACE, Drawing
from tools.demo_model.optimizers import build_optimizer
from tools.demo_model.pretrain import (
    CLASSES,
    LOSS_WEIGHTS,
    LabelledPictures,
    MaskedCrossentropy,
    as_floats,
    target_weights,
)
from tools.demo_model.pretrain_labels import SHAPE_OF
from tools.demo_model.records import DemoData

# which heads read the map before the last stage, which the last one's
EARLY_HEADS, LAST_HEADS = ("strokes",), ("letters", "spelling")
EPOCH_STEPS = 20


@dataclass(frozen=True)
class Reading:
    """How the stage trains.

    Attributes:
        early_minutes: of the first stages alone.
        minutes: of the whole encoder.
        batch_size: pictures of a batch.
        words: how many of them are words.
        early_rate: peak learning rate of the first stages alone.
        rate: peak learning rate of the whole encoder.
        early_kept: weight of the other pictures' maps while the first stages learn.
        kept: the same while the whole encoder learns.
        early_optimizer: of the first stages alone, see `optimizers`. On a CPU a step of the whole
            encoder takes twice the time with Muon.
    """

    early_minutes: float
    minutes: float
    batch_size: int = 128
    words: int = 88
    early_rate: float = 1.5e-3
    rate: float = 7e-4
    early_kept: float = 4.0
    kept: float = 4.0
    early_optimizer: str = "adamw"


class WordsAndOthers(LabelledPictures):
    """Batches of so many words, then other pictures: uint8[B, S, S, 3] and the words' targets.

    Args:
        data: the recipe's pictures; its mix is that of the others, words left out.
        reading: sizes of the batches.
        heads: which targets.
        seed: of the whole run.
    """

    def __init__(
        self, data: DemoData, reading: Reading, heads: tuple[str, ...], seed: int = 0
    ) -> None:
        super().__init__(data, reading.batch_size, EPOCH_STEPS, seed=seed)
        self.words, self.heads = reading.words, heads

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
        self.map_shape = model.output.shape[1:]

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


def compile_model(model: keras.Model, optimizer: keras.optimizers.Optimizer, kept: float) -> None:
    """Gives every output its loss and weight, and the letters their accuracy."""
    heads = [key for key in model.output if key != "kept"]
    model.compile(
        optimizer,
        loss={**{key: MaskedCrossentropy(0.05) for key in heads}, "kept": MeanSquare()},
        loss_weights={**{key: LOSS_WEIGHTS[key] for key in heads}, "kept": kept},
        weighted_metrics={key: ["sparse_categorical_accuracy"] for key in heads},
    )


def train_part(
    encoder: FastVLM,
    before: FastVLM,
    data: DemoData,
    reading: Reading,
    whole: bool,
    folder: Path,
    drawing: Drawing = IN_PLACE,
) -> None:
    """Trains the first stages or the whole encoder by the clock, fresh heads first.

    Args:
        encoder: to be trained, in any form that trains; it is changed.
        before: the encoder as it was.
        data: the recipe's pictures; the mix is that of the other pictures.
        reading: how.
        whole: the whole encoder, or all stages but the last.
        folder: of the log.
        drawing: who draws the pictures.
    """
    heads = EARLY_HEADS + LAST_HEADS if whole else EARLY_HEADS
    batches = WordsAndOthers(data, reading, heads, seed=50 + whole)
    model = build(encoder, before, as_floats(batches.batch(9999, 0)[0]), reading.words, whole)
    minutes = reading.minutes if whole else reading.early_minutes
    rate = reading.rate if whole else reading.early_rate
    kept = reading.kept if whole else reading.early_kept
    kind = "adamw" if whole else reading.early_optimizer
    dense = tuple(f"{head}_dense" for head in heads)
    optimizer = build_optimizer(kind, rate, heads=dense)
    folder.mkdir(parents=True, exist_ok=True)
    log = keras.callbacks.CSVLogger(folder / f"{'whole' if whole else 'early'}.csv")
    with drawing.drawn(batches) as pictures:
        encoder.trainable = False
        compile_model(model, keras.optimizers.Adam(3e-3), kept)
        model.fit(pictures, epochs=6, shuffle=False, verbose=2)
        encoder.trainable = True
        compile_model(model, optimizer, kept)
        callbacks = [log, Deadline(rate, minutes)]
        model.fit(pictures, epochs=ENDLESS, callbacks=callbacks, shuffle=False, verbose=2)


def read(
    encoder: FastVLM,
    data: DemoData,
    reading: Reading,
    folder: Path,
    drawing: Drawing = IN_PLACE,
) -> FastVLM:
    """Teaches an encoder to read; what was finished in `folder` is not run again.

    Returns:
        The encoder, trained, in the form it came in.
    """
    before = FastVLM.from_config(encoder.get_config())
    before.set_weights(encoder.get_weights())
    for part, whole in (("early", False), ("encoder", True)):
        if (folder / part / "config.json").is_file():
            encoder = FastVLM.from_preset(folder / part)
            continue
        train_part(encoder, before, data, reading, whole, folder, drawing)
        encoder.save_to_preset(folder / part)
    return encoder
