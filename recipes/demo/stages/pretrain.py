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

from dl_techniques import FastVLM
from dl_techniques.training import Optimizer, Stage, StageSettings, has_begun
from recipes.demo.draw.pretrain_labels import (
    IGNORED,
    NOTHING,
    NUM_CELL_CLASSES,
    PLACES,
    SHAPE_OF,
    SIZES,
)
from recipes.demo.draw.records import DemoData

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


class LabelledPictures:
    """Batches of freshly drawn pictures: uint8[B, S, S, 3], targets and weights by head.

    Args:
        data: the recipe's pictures.
        batch_size: rows of a batch.
        steps: batches of an epoch.
        seed: of the whole run.
    """

    def __init__(self, data: DemoData, batch_size: int, steps: int, seed: int = 0) -> None:
        self.data, self.batch_size, self.steps, self.seed = data, batch_size, steps, seed

    def __len__(self) -> int:
        return self.steps

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


def losses() -> dict[str, Any]:
    """Every head's loss, weight and accuracy, for `compile`."""
    return {
        "loss": {key: MaskedCrossentropy() for key in CLASSES},
        "loss_weights": LOSS_WEIGHTS,
        "weighted_metrics": {key: ["sparse_categorical_accuracy"] for key in CLASSES},
    }


def as_floats(images: np.ndarray) -> np.ndarray:
    """uint8 pictures as the encoder takes them: float32, 0 to 1."""
    return images.astype("float32") / 255


WARM = Optimizer(learning_rate=3e-3, weight_decay=0.01, average=0.99)


def warm_heads(
    model: keras.Model, encoder: FastVLM, pictures: LabelledPictures, folder: Path
) -> None:
    """Fits fresh heads to an encoder that stays as it is, for two epochs."""
    encoder.trainable = False
    optimizer = WARM.build(None)
    steps = 2 * len(pictures)
    Stage(model, pictures, optimizer, steps=steps, compiling=losses(), verbose=2).run(folder)
    encoder.trainable = True


def pretrain(
    encoder: FastVLM, data: DemoData, settings: StageSettings, folder: Path, steps: int, warm: bool
) -> None:
    """Trains an encoder under fresh heads; goes on after a kill.

    Args:
        encoder: branched; it is changed.
        data: the recipe's pictures.
        settings: of the stage.
        folder: of the training.
        steps: batches of an epoch.
        warm: fit the heads to the encoder first, so that they do not undo what it knows.
    """
    model = build(encoder)
    if warm and not has_begun(folder):
        pictures = LabelledPictures(data, settings.batch_size, steps, seed=settings.seed + 1)
        warm_heads(model, encoder, pictures, folder / "heads")
    pictures = LabelledPictures(data, settings.batch_size, steps, seed=settings.seed)
    settings.train(folder, model, pictures, compiling=losses(), preload=[__name__], verbose=2)
