"""Encoder and projector learn to make rows from which a trained decoder reads letters.

Usage:
    make_legible(model, before, data, reading, folder)

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
from tools.demo_model.deadline import ENDLESS, Deadline
from tools.demo_model.drawn_ahead import IN_PLACE, Drawing
from tools.demo_model.optimizers import build_optimizer
from tools.demo_model.pretrain import as_floats
from tools.demo_model.reading import (
    EARLY_HEADS,
    LAST_HEADS,
    Heads,
    Reading,
    Rows,
    Untracked,
    WordsAndOthers,
    compile_model,
)
from tools.demo_model.records import DemoData

__all__ = ["make_legible"]
FIT_EPOCHS = 12


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
    folder: Path,
    drawing: Drawing = IN_PLACE,
) -> None:
    """Trains encoder and projector by the clock; the decoder does not change.

    Args:
        model: to be trained, its encoder in any form that trains.
        before: what the decoder was trained with.
        data: the recipe's pictures; the mix is that of the other pictures.
        reading: how: minutes, rate and `kept` of the whole encoder.
        folder: of the log.
        drawing: who draws the pictures.
    """
    encoder: FastVLM = model.backbone.vision_encoder
    batches = WordsAndOthers(data, reading, EARLY_HEADS + LAST_HEADS, seed=52)
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

    folder.mkdir(parents=True, exist_ok=True)
    log = keras.callbacks.CSVLogger(folder / "rows.csv")
    with drawing.drawn(batches) as drawn:
        encoder.trainable = model.backbone.projector.trainable = False
        compile_model(fitting, keras.optimizers.Adam(3e-3), reading.kept)
        fitting.fit(drawn, epochs=FIT_EPOCHS, shuffle=False, verbose=2)
        encoder.trainable = model.backbone.projector.trainable = True
        for layer in heads.layers.values():
            layer.trainable = False
        compile_model(network, build_optimizer("adamw", reading.rate), reading.kept)
        callbacks = [log, Deadline(reading.rate, reading.minutes)]
        network.fit(drawn, epochs=ENDLESS, callbacks=callbacks, shuffle=False, verbose=2)
