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

MIX = {"emoji": 0.46, "scenes": 0.22, "words": 0.17, "clothing": 0.10, "easy_vqa": 0.05}
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


@keras.saving.register_keras_serializable(package="tools.demo_model")
class LetterReader(keras.layers.Layer):
    """One learned query for each letter's place looks for it in the map.

    A dense layer on the flattened map would have to learn every letter anew at every position.
    """

    def __init__(self, dim: int = 192, name: str = "letter_reader") -> None:
        super().__init__(name=name)
        self.keys = keras.layers.Dense(dim, name="keys")
        self.attention = keras.layers.MultiHeadAttention(6, dim // 6, name="attention")
        self.hidden = keras.layers.Dense(2 * dim, "relu", name="hidden")
        self.norm = keras.layers.LayerNormalization(name="norm")
        self.letters = keras.layers.Dense(CLASSES["word"], name="letters")
        self.dim = dim

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Makes the queries and the positions of the map's places."""
        initial = keras.initializers.RandomNormal(stddev=0.5)
        self.queries = self.add_weight(
            shape=(LETTERS, self.dim), initializer=initial, name="queries"
        )
        self.places = self.add_weight(
            shape=(shape[1] * shape[2], self.dim), initializer=initial, name="places"
        )
        self.built = True

    def call(self, features: Any) -> Any:
        """float[B, h, w, C] -> logits float[B, LETTERS, 27]."""
        batch, height, width, channels = ops.shape(features)
        tokens = self.keys(ops.reshape(features, (batch, height * width, channels))) + self.places
        queries = ops.repeat(ops.expand_dims(self.queries, 0), batch, axis=0)
        found = queries + self.attention(queries, tokens)
        return self.letters(self.norm(self.hidden(found)))


def build(encoder: FastVLM, dropout: float = 0.1) -> keras.Model:
    """The encoder with its heads, on the map itself, on its mean, or on all of it at once."""
    features = encoder.output
    pooled = keras.layers.Dropout(dropout)(keras.layers.GlobalAveragePooling2D()(features))
    outputs = {
        "name": keras.layers.Dense(CLASSES["name"], name="name")(pooled),
        "clothing": keras.layers.Dense(CLASSES["clothing"], name="clothing")(pooled),
        "cells": keras.layers.Dense(CLASSES["cells"], name="cells")(features),
        "colour": keras.layers.Dense(CLASSES["colour"], name="colour")(features),
        "word": LetterReader(name="word")(features),
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
    start: Path | None = None,
    steps: int = 250,
    batch_size: int = 64,
    learning_rate: float = 1.5e-3,
) -> FastVLM:
    """Trains the encoder; resumes from `folder` after a kill.

    Args:
        data: the recipe's pictures.
        folder: backups, the log, and the trained encoder.
        epochs: of `steps` batches; the learning rate falls along a cosine over all of them.
        start: preset of an earlier encoder to go on from, with a fresh optimizer.
        steps: batches of an epoch.
        batch_size: pictures of a batch.
        learning_rate: peak of the cosine.

    Returns:
        The trained encoder in its branched form.
    """
    if (folder / "encoder" / "config.json").is_file():
        return FastVLM.from_preset(folder / "encoder")
    shape = (data.size, data.size, 3)
    encoder = (
        FastVLM.from_preset(start)
        if start is not None
        else FastVLM.from_variant("demo", include_top=False, input_shape=shape)
    )
    model = build(encoder)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, epochs * steps, alpha=0.01, warmup_target=learning_rate, warmup_steps=200
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
