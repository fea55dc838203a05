"""Stage 1: the encoder learns names, places, colours, letters and clothes from labels.

A plain classifier with several heads, dropped afterwards. Every picture has targets for some of
the heads only; the others get weight zero.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques import FastVLM, FastVLMCausalLM
from tools.demo_model.deadline import stage_callbacks
from tools.demo_model.drawn_ahead import IN_PLACE, Drawing
from tools.demo_model.pretrain_labels import (
    IGNORED,
    NOTHING,
    NUM_CELL_CLASSES,
    PLACES,
    SHAPE_OF,
    SIZES,
)
from tools.demo_model.records import DemoData

MIX = {"emoji": 0.42, "scenes": 0.32, "words": 0.10, "clothing": 0.08, "easy_vqa": 0.08}
CLASSES = {
    "name": 650,
    "clothing": 10,
    "cells": NUM_CELL_CLASSES,
    "colour": 12,
    "x": PLACES,
    "y": PLACES,
    "size": SIZES,
    "strokes": 27,
    "letters": 27,
    "spelling": 27,
}
LOSS_WEIGHTS = {
    "name": 1.0,
    "clothing": 0.5,
    "cells": 0.7,
    "colour": 0.3,
    "x": 0.15,
    "y": 0.15,
    "size": 0.15,
    "strokes": 1.0,
    "letters": 0.7,
    "spelling": 1.0,
}
# what most cells hold, and what it counts
BACKGROUND = {
    "cells": (NOTHING, 0.2),
    "strokes": (0, 0.05),
    "letters": (0, 0.05),
    "spelling": (0, 0.05),
}


class LabelledPictures(keras.utils.PyDataset):
    """Batches of freshly drawn pictures: uint8[B, S, S, 3], targets and weights by head.

    Args:
        data: the recipe's pictures.
        batch_size: rows of a batch.
        steps: batches of an epoch.
        epoch: the first epoch's number, when a run is resumed.
        seed: of the whole run.
    """

    def __init__(
        self, data: DemoData, batch_size: int, steps: int, epoch: int = 0, seed: int = 0
    ) -> None:
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=16)
        self.data, self.batch_size, self.steps = data, batch_size, steps
        self.first_epoch, self.seed = epoch, seed

    def __len__(self) -> int:
        return self.steps

    def on_epoch_end(self) -> None:
        """The next epoch draws other pictures. Keras calls this once before the first epoch."""
        self.first_epoch += 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
        return self.batch(self.first_epoch, index)

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
        """One batch of any epoch."""
        start = (epoch * self.steps + index) * self.batch_size
        drawn = [self._draw(start + row) for row in range(self.batch_size)]
        images = np.stack([image for image, _ in drawn])
        targets = {key: np.stack([t[key] for _, t in drawn]) for key in CLASSES}
        weights = {key: target_weights(key, target) for key, target in targets.items()}
        return images, {k: np.maximum(t, 0) for k, t in targets.items()}, weights

    def _draw(self, number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        kind = self.data.kind_at(number, self.seed)
        return self.data.make_labelled(kind, "train", number, self.seed)


def target_weights(key: str, target: np.ndarray) -> np.ndarray:
    """float32 like the target: 0 where nothing is to be learnt."""
    weights = (target != IGNORED).astype("float32")
    if key in BACKGROUND:
        common, weight = BACKGROUND[key]
        weights[target == common] = weight
    return weights


def build(encoder: FastVLM, dropout: float = 0.1) -> keras.Model:
    """The encoder with its heads: one linear layer each, on the map or on its mean.

    What a linear layer can tell from a cell, the projector can hand to the decoder. Letters are
    also asked for one stage earlier: small things are learnt sooner from a finer map.
    """
    pictures = keras.Input(encoder.input_shape[1:], dtype="uint8", name="pictures")
    maps = keras.Model(encoder.input, [stage.output for stage in encoder.stages[:-3:-1]])
    features, finer = maps(keras.layers.Rescaling(1 / 255)(pictures))
    pooled = keras.layers.Dropout(dropout)(
        keras.layers.GlobalAveragePooling2D("channels_last")(features)
    )
    outputs = {}
    for key, classes in CLASSES.items():
        place = SHAPE_OF[key]
        logits = keras.layers.Dense(math.prod(place[2:]) * classes, name=f"{key}_dense")
        source = finer if key == "strokes" else features if place else pooled
        outputs[key] = keras.layers.Reshape((*place, classes), name=key)(logits(source))
    return keras.Model(pictures, outputs, name="pretraining")


@keras.saving.register_keras_serializable(package="tools.demo_model")
class MaskedCrossentropy(keras.losses.Loss):
    """Cross-entropy from logits with label smoothing, averaged over what is not ignored."""

    def __init__(self, smoothing: float = 0.1, name: str = "masked_crossentropy") -> None:
        super().__init__(reduction=None, name=name)
        self.smoothing = smoothing

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Mean over the places of weight 1; 0 where a batch has none."""
        log = ops.log_softmax(ops.cast(y_pred, "float32"))
        y_true = ops.convert_to_tensor(y_true)
        picked = ops.squeeze(ops.take_along_axis(log, ops.expand_dims(y_true, -1), axis=-1), -1)
        loss = -(1 - self.smoothing) * picked - self.smoothing * ops.mean(log, axis=-1)
        sample_weight = ops.convert_to_tensor(sample_weight)
        return ops.sum(loss * sample_weight) / ops.maximum(ops.sum(sample_weight), 1.0)


def is_whole_model(preset: Path | None) -> bool:
    """Whether a preset holds encoder, projector and decoder."""
    return preset is not None and (preset / "task.json").is_file()


def load_encoder(preset: Path) -> FastVLM:
    """The encoder of a preset, which may be that of a whole model."""
    if is_whole_model(preset):
        return FastVLMCausalLM.from_preset(str(preset)).backbone.vision_encoder
    return FastVLM.from_preset(preset)


def completed_epochs(folder: Path) -> int:
    """How many epochs an earlier run has logged."""
    log = folder / "log.csv"
    return max(len(log.read_text().splitlines()) - 1, 0) if log.is_file() else 0


def compile_model(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Gives every head its loss, weight and accuracy."""
    model.compile(
        optimizer,
        loss={key: MaskedCrossentropy() for key in CLASSES},
        loss_weights=LOSS_WEIGHTS,
        weighted_metrics={key: ["sparse_categorical_accuracy"] for key in CLASSES},
    )


def as_floats(images: np.ndarray) -> np.ndarray:
    """uint8 pictures as the encoder takes them: float32, 0 to 1."""
    return images.astype("float32") / 255


def warm_heads(
    model: keras.Model, encoder: FastVLM, data: DemoData, steps: int, batch_size: int
) -> None:
    """Fits fresh heads to an encoder that stays as it is."""
    encoder.trainable = False
    optimizer = keras.optimizers.AdamW(3e-3, weight_decay=0.01, use_ema=True, ema_momentum=0.99)
    compile_model(model, optimizer)
    pictures = LabelledPictures(data, batch_size, steps, seed=1)
    model.fit(pictures, epochs=2, shuffle=False, verbose=2)
    encoder.trainable = True


def pretrain(
    data: DemoData,
    folder: Path,
    epochs: int,
    start: FastVLM | None = None,
    steps: int = 250,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    drawing: Drawing = IN_PLACE,
    minutes: float | None = None,
) -> FastVLM:
    """Trains the encoder; resumes from `folder` after a kill.

    Args:
        data: the recipe's pictures.
        folder: backups, the log, and the trained encoder.
        epochs: of `steps` batches; the learning rate falls along a cosine over all of them.
        start: an earlier encoder to go on from, with a fresh optimizer; the heads are fitted to
            it first, so that they do not undo it, unless the stage ends by the clock.
        steps: batches of an epoch.
        batch_size: pictures of a batch.
        learning_rate: peak of the cosine.
        drawing: who draws the pictures.
        minutes: end by the clock instead of after so many epochs; keeps no backups.

    Returns:
        The trained encoder, branched if `start` is branched or not given.
    """
    if (folder / "encoder" / "config.json").is_file():
        return FastVLM.from_preset(folder / "encoder")
    shape = (data.size, data.size, 3)
    encoder = start or FastVLM.from_variant("demo", include_top=False, input_shape=shape)
    if epochs == 0:
        encoder.save_to_preset(folder / "encoder")
        return encoder
    model = build(encoder)
    schedule: Any = keras.optimizers.schedules.CosineDecay(
        0.0, epochs * steps, alpha=0.01, warmup_target=learning_rate, warmup_steps=200
    )
    optimizer = keras.optimizers.AdamW(
        schedule if minutes is None else learning_rate,
        weight_decay=0.05,
        global_clipnorm=1.0,
        use_ema=True,
        ema_momentum=0.995,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    folder.mkdir(parents=True, exist_ok=True)
    callbacks = stage_callbacks(folder, learning_rate, minutes)
    done = completed_epochs(folder)
    if start is not None and not done and minutes is None:
        warm_heads(model, encoder, data, steps, batch_size)
    compile_model(model, optimizer)
    with drawing.drawn(LabelledPictures(data, batch_size, steps, epoch=done), done) as pictures:
        model.fit(pictures, epochs=epochs, callbacks=callbacks, shuffle=False, verbose=2)
    encoder.save_to_preset(folder / "encoder")
    return encoder
