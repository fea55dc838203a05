"""Stage 1: the encoder learns names, places, colours, letters and clothes from labels.

A plain classifier with several heads, dropped afterwards. Every picture has targets for some of
the heads only; the others get weight zero.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques import FastVLM
from tools.demo_model.records import IGNORED, NUM_CELL_CLASSES, DemoData

MIX = {"emoji": 0.48, "scenes": 0.24, "words": 0.10, "clothing": 0.13, "easy_vqa": 0.05}
CLASSES = {"name": 650, "cells": NUM_CELL_CLASSES, "colour": 12, "word": 27, "clothing": 10}
LETTERS = 6
LOSS_WEIGHTS = {"name": 1.0, "cells": 0.7, "colour": 0.3, "word": 0.7, "clothing": 0.6}


class LabelledPictures(keras.utils.PyDataset):
    """Batches of freshly drawn pictures: float[B, S, S, 3], targets and weights by head.

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
        start = (self.first_epoch * self.steps + index) * self.batch_size
        drawn = [self._draw(start + row) for row in range(self.batch_size)]
        images = np.stack([image for image, _ in drawn]).astype("float32") / 255
        targets = {key: np.stack([t[key] for _, t in drawn]) for key in CLASSES}
        weights = {key: (t != IGNORED).astype("float32") for key, t in targets.items()}
        return images, {k: np.maximum(t, 0) for k, t in targets.items()}, weights

    def _draw(self, number: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        kind = self.data.kind_at(number, self.seed)
        return self.data.make_labelled(kind, "train", number, self.seed)


def build(encoder: FastVLM, dropout: float = 0.1) -> keras.Model:
    """The encoder with its heads, on the map itself, on its mean, or on all of it at once."""
    features = encoder.output
    pooled = keras.layers.Dropout(dropout)(keras.layers.GlobalAveragePooling2D()(features))
    flat = keras.layers.Flatten()(features)
    outputs = {
        "name": keras.layers.Dense(CLASSES["name"], name="name")(pooled),
        "clothing": keras.layers.Dense(CLASSES["clothing"], name="clothing")(pooled),
        "cells": keras.layers.Dense(CLASSES["cells"], name="cells")(features),
        "colour": keras.layers.Dense(CLASSES["colour"], name="colour")(features),
        "word": keras.layers.Reshape((LETTERS, CLASSES["word"]), name="word")(
            keras.layers.Dense(LETTERS * CLASSES["word"], name="letters")(flat)
        ),
    }
    return keras.Model(encoder.input, outputs, name="pretraining")


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


def completed_epochs(folder: Path) -> int:
    """How many epochs an earlier run has logged."""
    log = folder / "log.csv"
    return max(len(log.read_text().splitlines()) - 1, 0) if log.is_file() else 0


def pretrain(
    data: DemoData,
    folder: Path,
    epochs: int,
    schedule_epochs: int = 9,
    steps: int = 250,
    batch_size: int = 64,
    learning_rate: float = 1.5e-3,
) -> FastVLM:
    """Trains the encoder; resumes from `folder` after a kill.

    The learning rate follows the cosine of `schedule_epochs`, also where `epochs` end earlier: the
    later stages train on, and averaged weights (EMA) need no small rate at the end.

    Returns:
        The trained encoder in its branched form.
    """
    if (folder / "encoder" / "config.json").is_file():
        return FastVLM.from_preset(folder / "encoder")
    encoder = FastVLM.from_variant("demo", include_top=False, input_shape=(data.size, data.size, 3))
    model = build(encoder)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, schedule_epochs * steps, alpha=0.01, warmup_target=learning_rate, warmup_steps=200
    )
    optimizer = keras.optimizers.AdamW(
        schedule, weight_decay=0.05, global_clipnorm=1.0, use_ema=True, ema_momentum=0.995
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    model.compile(
        optimizer,
        loss={key: MaskedCrossentropy() for key in CLASSES},
        loss_weights=LOSS_WEIGHTS,
        weighted_metrics={key: ["sparse_categorical_accuracy"] for key in CLASSES},
    )
    folder.mkdir(parents=True, exist_ok=True)
    backup = keras.callbacks.BackupAndRestore(folder / "backup", delete_checkpoint=False)
    pictures = LabelledPictures(data, batch_size, steps, epoch=completed_epochs(folder))
    log = keras.callbacks.CSVLogger(folder / "log.csv", append=True)
    model.fit(pictures, epochs=epochs, callbacks=[backup, log], shuffle=False, verbose=2)
    encoder.save_to_preset(folder / "encoder")
    return encoder
