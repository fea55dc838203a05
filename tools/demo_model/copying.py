"""A second decoder layer that carries to the answer what the first one says at a question's words.

Usage:
    copying = add_copying_layer(add_pointing_layer(model, data), data)

The first layer (`pointing`) says at a noun where its object is, which colour it has and how large
it is. Of that the rows of the answer knew little after 36 000 records more: a linear fit told the
row of nine places there in 56 %, where the noun's own row told it in 83 %. One head is fitted to
look from the rows of an answer at the nouns of its conversation, and to add what is said there of
places, colours and sizes: 75 % before any training.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from dl_techniques import FastVLMCausalLM
from dl_techniques.data import ConversationDataset
from tools.demo_model.deepen import with_layers
from tools.demo_model.finetune import Conversations
from tools.demo_model.layer_fitting import fitted, put, run_first_layer
from tools.demo_model.pointing import PLACE_WORDS
from tools.demo_model.records import DemoData
from tools.demo_model.shapes import COLOUR_NAMES, SHAPES
from tools.demo_model.told_words import embedded

__all__ = ["add_copying_layer", "with_second_layer"]
HEAD, GROUP = 0, 0
SHARP = 20.0  # score of a noun's row from an answer's
LOUD = 2.0  # what is added, over what was said
BATCH = 64


def add_copying_layer(
    model: FastVLMCausalLM, data: DemoData, records: int = 640
) -> FastVLMCausalLM:
    """Returns a model with one more decoder layer, the second.

    Args:
        model: its first layer is a pointing layer; it shares encoder and preprocessor.
        data: the recipe's pictures.
        records: conversations that the head's look is fitted to.
    """
    deeper = with_second_layer(model)
    layer = deeper.backbone.text_backbone.transformer_layers[1]
    attention = layer._self_attention_layer
    inputs, is_noun, is_answer, size = text_rows(deeper, data, records)
    says = word_directions(deeper)
    width = attention._value_dense.kernel.shape[-1]
    scale = ops.convert_to_numpy(layer._self_attention_layernorm.weights[0])
    # the pair of dimensions that rotary embedding turns least
    steady = np.array([width // 2 - 1])
    strength = np.sqrt(SHARP * np.sqrt(width))
    looks = (
        (attention._query_dense, HEAD, is_answer, np.ones(len(inputs))),
        (attention._key_dense, GROUP, is_noun, np.where(is_noun, 1.0, 0.3)),
    )
    for dense, head, target, weights in looks:
        kernel, bias = fitted(inputs, target[:, None].astype("float64"), weights, 1e-4)
        whole = np.zeros((len(kernel), width)), np.zeros(width)
        whole[0][:, steady], whole[1][steady] = strength * kernel, strength * bias
        put(dense, head, np.arange(width), *whole)
    read = (size * says / scale).T
    put(
        attention._value_dense,
        GROUP,
        np.arange(len(says)),
        read,
        -(inputs[is_noun] @ read).mean(0),  # what every noun's row has is no news
    )
    written = np.array(ops.convert_to_numpy(attention._output_dense.kernel))
    written[HEAD, : len(says)] = LOUD * says
    attention._output_dense.set_weights([written])
    return deeper


def with_second_layer(model: FastVLMCausalLM) -> FastVLMCausalLM:
    """Returns a model of the same answers with one more decoder layer, behind the first."""
    layers = range(len(model.backbone.text_backbone.transformer_layers))
    return with_layers(model, [(0, False), (0, True), *((i, False) for i in layers[1:])])


def text_rows(
    model: FastVLMCausalLM, data: DemoData, records: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """What the second layer's attention is given, in conversations about scenes.

    Returns:
        float[N, hidden], bool[N] of questions' nouns, bool[N] of the rows that answers come from,
        and the root mean square of the nouns' rows before the norm.
    """
    nouns = [*sorted(data.scenes.label_ids), *SHAPES]
    tokens = [model.preprocessor.tokenizer(f" {noun}")[-1] for noun in nouns]
    norm = model.backbone.text_backbone.transformer_layers[1]._self_attention_layernorm
    scenes = DemoData(data.work, data.clothing_tar, data.size, {"scenes": 1.0}, lookups=True)
    conversations = Conversations(scenes, records, seed=300)
    batches = ConversationDataset(conversations, model.preprocessor, BATCH, shuffle=False)
    parts: list[tuple[np.ndarray, ...]] = []
    for step in range(len(batches)):
        inputs, _, weights = batches[step]
        stream = run_first_layer(model, inputs)
        mask = np.asarray(inputs["padding_mask"]).astype(bool)
        answers = np.asarray(weights) > 0
        named = np.isin(np.asarray(inputs["token_ids"]), tokens) & ~answers
        sizes = np.sqrt(np.square(ops.convert_to_numpy(stream)).mean(-1))
        rows = ops.convert_to_numpy(norm(stream)).astype("float64")
        parts.append((rows[mask], named[mask], answers[mask], sizes[mask & named]))
    rows, named, answers, sizes = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, named, answers, float(sizes.mean())


def word_directions(model: FastVLMCausalLM) -> np.ndarray:
    """float[n, hidden], orthonormal: what is said of places, colours and sizes."""
    texts = [*PLACE_WORDS, " left", " right", *COLOUR_NAMES]
    said = [embedded(model, text) for text in texts]
    said.append(embedded(model, " bigger") - embedded(model, " smaller"))
    _, strengths, directions = np.linalg.svd(np.stack(said), full_matrices=False)
    found: np.ndarray = directions[strengths > 1e-3 * strengths[0]]
    return found
