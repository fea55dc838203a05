"""Lets the decoder find in a picture what a question names: words and pictures in one space.

In a decoder trained from nothing beside a picture's rows, words stayed far smaller than what the
first layer writes into the residual stream (a root mean square of 0.08 beside 6.9), so the word
that a question is about was lost there and the answer came from the kind of the question alone.
Two steps before the language stage mend that:

- `raise_embeddings` makes the words as large as what the layers write;
- `name_objects` lets the projector add, to the row of a cell, the words of the object in it, so
  that a question's word and its object look alike to the first attention.
"""

from __future__ import annotations

import keras
import numpy as np

from dl_techniques import FastVLMCausalLM
from tools.demo_model.finetune import projector_copy
from tools.demo_model.pretrain import LabelledPictures, as_floats
from tools.demo_model.pretrain_labels import NUM_CELL_CLASSES
from tools.demo_model.records import NUM_LABELS, DemoData
from tools.demo_model.shapes import COLOUR_NAMES, SHAPES
from tools.demo_model.told_words import embedded as summed_embeddings

__all__ = ["name_objects", "raise_embeddings"]


def raise_embeddings(model: FastVLMCausalLM, size: float) -> float:
    """Multiplies the token embedding, so that its root mean square is `size`.

    The last norm is divided by as much, so that the tied head's logits stay what they are for the
    same stream; the stream itself is another one, and the layers have to be trained again.

    Returns:
        The factor.
    """
    decoder = model.backbone.text_backbone
    table = decoder.token_embedding.embeddings
    factor = size / float(np.sqrt(np.mean(np.square(keras.ops.convert_to_numpy(table)))))
    table.assign(table * factor)
    (scale,) = decoder.layer_norm.weights
    scale.assign(scale / factor)
    return factor


def name_objects(
    model: FastVLMCausalLM,
    data: DemoData,
    size: float = 2.0,
    steps: int = 300,
    batch_size: int = 64,
    rate: float = 2e-3,
) -> float:
    """Fits the projector to its own rows plus the embeddings of what is in their cells.

    Args:
        model: its decoder and encoder stay as they are.
        data: the recipe's pictures.
        size: root mean square of what is added to a row.
        steps: batches that the projector is fitted on.
        batch_size: pictures of a batch.
        rate: of Adam, peak of the cosine.

    Returns:
        The last mean squared error.
    """
    vision, projector = model.backbone.vision_encoder, model.backbone.projector
    vision.trainable = False
    old = projector_copy(model)
    fitted = keras.Sequential([keras.Input(vision.output.shape[1:]), projector])
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps, alpha=0.01)
    fitted.compile(keras.optimizers.Adam(schedule), loss="mse")
    names, colours = name_table(model, data, size), colour_table(model, size)
    pictures = LabelledPictures(data, batch_size, steps, seed=6)
    loss = 0.0
    for step in range(steps):
        images, targets, weights = pictures[step]
        features = vision(as_floats(images), training=False)
        rows = keras.ops.convert_to_numpy(old(features, training=False)).astype("float32")
        known = (weights["cells"] > 0)[..., None] * names[targets["cells"]]
        known = known + (weights["colour"] > 0)[..., None] * colours[targets["colour"]]
        loss = float(fitted.train_on_batch(features, rows + known.reshape(rows.shape)))
        if step % 100 == 99:
            print(f"naming, step {step + 1}: mean squared error {loss:.4f}", flush=True)
    return loss


def name_table(model: FastVLMCausalLM, data: DemoData, size: float) -> np.ndarray:
    """float32[classes of a cell, hidden]; zero where nothing is, or no scene has it."""
    hidden = model.backbone.text_backbone.hidden_dim
    table = np.zeros((NUM_CELL_CLASSES, hidden), "float32")
    for name, number in data.scenes.label_ids.items():
        table[number] = embedded(model, name, size)
    for number, name in enumerate(SHAPES):
        table[NUM_LABELS + number] = embedded(model, name, size)
    return table


def colour_table(model: FastVLMCausalLM, size: float) -> np.ndarray:
    """float32[colours, hidden]."""
    return np.stack([embedded(model, name, size) for name in COLOUR_NAMES])


def embedded(model: FastVLMCausalLM, word: str, size: float) -> np.ndarray:
    """The sum of the embeddings of a word's pieces, with a root mean square of `size`."""
    total = summed_embeddings(model, f" {word}")
    return (total * size / np.sqrt(np.mean(np.square(total)))).astype("float32")
