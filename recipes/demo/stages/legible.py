"""Encoder and projector learn to make rows from which a trained decoder reads letters.

Usage:
    make_legible(model, before, data, reading, settings, folder)

A batch through the decoder costs three to four times what it costs up to the rows. Linear layers
are therefore fitted to tell letters from the rows that the decoder knows, and held; encoder and
projector are then trained until these layers read right, as `reading` does it with the maps. Rows
of other pictures are to stay as they were.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
from keras import ops

from dl_techniques import FastVLM, FastVLMCausalLM
from dl_techniques.training import StageSettings
from recipes.demo.draw.records import DemoData
from recipes.demo.stages.pretrain import as_floats
from recipes.demo.stages.reading import (
    EARLY_HEADS,
    LAST_HEADS,
    Heads,
    Reading,
    Rows,
    Untracked,
    WordsAndOthers,
    fit_heads,
    losses,
)

__all__ = ["make_legible"]


def rows_of(model: FastVLMCausalLM, taps: tuple[Any, ...] = ()) -> keras.Model:
    """Pictures to the rows before a selection, float[B, h, w, D], then maps inside the encoder."""
    encoder: FastVLM = model.backbone.vision_encoder
    rows = model.backbone.projector(encoder.output)
    return keras.Model(encoder.input, [rows, *taps] if taps else rows, name="projected")


def make_legible(
    model: FastVLMCausalLM,
    before: FastVLMCausalLM,
    data: DemoData,
    reading: Reading,
    settings: StageSettings,
    folder: Path,
) -> None:
    """Trains encoder and projector, or goes on; the decoder does not change.

    Args:
        model: to be trained, its encoder in any form that trains.
        before: what the decoder was trained with.
        data: the recipe's pictures; the mix is that of the other pictures.
        reading: what is taught.
        settings: of the stage.
        folder: of the training.
    """
    encoder: FastVLM = model.backbone.vision_encoder
    batches = WordsAndOthers(
        data, settings.batch_size, reading.words, EARLY_HEADS + LAST_HEADS, settings.seed
    )
    images = as_floats(batches.batch(9999, 0)[0])
    rows = rows_of(model, (encoder.stages[-2].output,))
    kept = Untracked(rows_of(before))
    heads = Heads(LAST_HEADS, kept(images))
    strokes = Heads(EARLY_HEADS, rows(images)[1])

    pictures = keras.Input(encoder.input_shape[1:], dtype="uint8", name="pictures")
    floats = keras.layers.Rescaling(1 / 255)(pictures)
    words, others = Rows(0, reading.words), Rows(reading.words, None)
    seen, fine = rows(floats)
    known = kept(floats)
    stray = ops.divide(ops.subtract(others(seen), others(known)), heads.spread)
    outputs = {**heads(words(seen)), **strokes(words(fine))}
    outputs["kept"] = keras.layers.Identity(name="kept")(stray)
    network = keras.Model(pictures, outputs, name="legible")
    told = {**heads(words(known)), **{key: outputs[key] for key in (*EARLY_HEADS, "kept")}}
    fitting = keras.Model(pictures, told, name="heads_of_known_rows")

    encoder.trainable = model.backbone.projector.trainable = False
    fit_heads(fitting, batches, losses(fitting, reading.kept), folder / "heads")
    encoder.trainable = model.backbone.projector.trainable = True
    for layer in heads.layers.values():
        layer.trainable = False
    compiling = losses(network, reading.kept)
    settings.train(folder, network, batches, compiling=compiling, preload=[__name__])
