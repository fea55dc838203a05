"""A first decoder layer whose words look at what they name in the picture.

Usage:
    pointing = add_pointing_layer(model, data)

Trained from nothing, the attention that finds the object of a question came late: after 116 000
records it was right less than half of the time, and the rows that the projector had learnt to make
told less of names and places than the encoder's features do. Here projector, keys and values are
fitted to labelled scenes instead, and queries to the words, in those dimensions of a head that
rotary embedding hardly turns. What the layer writes is fitted as well: at a word that names an
object it says where that is, which colour it has and how large it is, in the words of the answers.
A layer that wrote nothing at first lost what it looked at before anything could use it (three
quarters of a noun's look were on its object, 0.45 after 188 000 records), so `hold` freezes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques import FastVLMCausalLM
from tools.demo_model.deepen import with_layers
from tools.demo_model.finetune import projector_copy
from tools.demo_model.language import plural
from tools.demo_model.layer_fitting import captured, fitted, put, run_first_layer
from tools.demo_model.pretrain import LabelledPictures, as_floats
from tools.demo_model.pretrain_labels import GRID, NOTHING, PLACES
from tools.demo_model.records import NUM_LABELS, DemoData
from tools.demo_model.shapes import COLOUR_NAMES, SHAPES
from tools.demo_model.told_words import asked_word

__all__ = ["add_pointing_layer", "hold", "with_first_layer"]
THIRDS = 6  # left, middle and right, then top, middle and bottom
PLACE_WORDS = {"left": (0,), "right": (2,), "top": (3,), "bottom": (5,), "center": (1, 4)}
LOOKS = len(COLOUR_NAMES) + THIRDS
FACTS = 4 + LOOKS
STEADY = 0.011  # radians a position: turned by less, a pair of dimensions keeps its direction
SHARPER = 2.0  # scores of the layer over those that were trained
EMPTY_WEIGHT = 0.2  # of cells without an object, which are by far the most
LOUDNESS = 0.5  # of what the layer writes, over the words' own embeddings
QUIET_WEIGHT = 0.15  # of rows at which the layer is to write nothing
QUESTION_LENGTH = 48


@dataclass
class Cells:
    """What is known of pictures' cells.

    Attributes:
        features: float32[N, GRID, GRID, C], of the encoder.
        names: int32[N, GRID * GRID], 0 where no object is, else 1 and its number among the nouns.
        looks: float32[N, GRID * GRID, LOOKS], colours and thirds, one where it is so.
        facts: float32[N, GRID * GRID, FACTS], whether an object is there, its x, y and size from
            -1 to 1, its looks; zero where none is.
    """

    features: np.ndarray
    names: np.ndarray
    looks: np.ndarray
    facts: np.ndarray


class PointingHeads(keras.Model):
    """Projector, keys and values, trained to tell what is in a cell from its row alone.

    Args:
        projector: of the model; trained further.
        old: the same as it was; its rows are kept as far as they can be.
        words: float32[V, hidden], the vocabulary, which is not what words are to look at.
        nouns: how many.
        size: dimensions of a key.
        scale: of the scores, as the attention divides them.
    """

    def __init__(
        self,
        projector: keras.layers.Layer,
        old: keras.Model,
        words: np.ndarray,
        nouns: int,
        size: int,
        scale: float,
    ) -> None:
        super().__init__()
        self.projector, self.old, self.words, self.scale = projector, old, words, scale
        self.old.trainable = False
        self.key_layers = [keras.layers.Dense(size, name=f"key_{i}") for i in range(2)]
        self.facts_layer = keras.layers.Dense(FACTS, name="facts")
        normal = keras.initializers.RandomNormal(1.0, seed=0)
        self.codes = [
            self.add_weight(name=f"codes_{i}", shape=(count, size), initializer=normal)
            for i, count in enumerate((nouns, LOOKS))
        ]

    def call(self, features: Any) -> dict[str, Any]:
        """float[B, h, w, C] -> scores, facts, and how far off rows and words are."""
        rows, before = (
            ops.reshape(part(features), (-1, GRID**2, self.words.shape[-1]))
            for part in (self.projector, self.old)
        )
        inputs = normalised(rows)
        names, looks = self.scores(inputs)
        stray = sum(ops.mean(ops.sum(ops.softplus(part), -1)) for part in self.scores(self.words))
        off = ops.mean(ops.square(rows - before)) / ops.mean(ops.square(before))
        nothing = ops.zeros_like(names[..., :1])
        return {
            "names": ops.concatenate([nothing, names], -1),
            "looks": looks,
            "facts": self.facts_layer(inputs),
            "off": ops.reshape(off, (1, 1)) + 0 * looks[:, :1, 0],
            "stray": ops.reshape(stray, (1, 1)) + 0 * looks[:, :1, 0],
        }

    def scores(self, inputs: Any) -> list[Any]:
        """Normalised rows or words -> how much each is the nouns, and the looks."""
        return [
            ops.matmul(key(inputs), ops.transpose(code)) * self.scale
            for key, code in zip(self.key_layers, self.codes, strict=True)
        ]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """What the rows do not tell, and how far off rows and words are."""
        names = ops.cast(y["names"], "int32")
        weights = ops.where(names > 0, 1.0, EMPTY_WEIGHT)
        named = keras.losses.sparse_categorical_crossentropy(
            names, y_pred["names"], from_logits=True
        )
        looks = ops.sum(ops.binary_crossentropy(y["looks"], y_pred["looks"], from_logits=True), -1)
        facts = ops.sum(ops.square(y["facts"] - y_pred["facts"]), -1)
        told = ops.sum(weights * (named + 0.5 * looks + 0.5 * facts)) / ops.sum(weights)
        return told + ops.mean(y_pred["off"]) + 0.5 * ops.mean(y_pred["stray"])


def add_pointing_layer(
    model: FastVLMCausalLM,
    data: DemoData,
    pictures: int = 16_000,
    epochs: int = 12,
    questions: int = 6_000,
) -> FastVLMCausalLM:
    """Returns a model with one more decoder layer below the others, and another projector.

    The layer's first group of heads looks from a noun at its object and reads where it is and how
    large; its last group looks from a colour or a place at what is so, and reads what that is. What
    it writes there are the words for it, see `write_words`.

    Args:
        model: shares its encoder and preprocessor with the new model; its projector is trained.
        data: the recipe's pictures.
        pictures: that projector and layer are fitted to; those without objects are passed over.
        epochs: over them.
        questions: that what it writes is fitted to, see `write_words`.
    """
    old = model.backbone.text_backbone
    groups, width = old.num_key_value_heads, old.hidden_dim // old.num_query_heads
    queries = old.num_query_heads // groups
    steady = steady_dimensions(width, old.rope_max_wavelength)
    nouns = [*sorted(data.scenes.label_ids), *SHAPES]
    words = word_vectors(model)
    heads = PointingHeads(
        model.backbone.projector,
        projector_copy(model),
        words,
        len(nouns),
        len(steady),
        len(steady) ** -0.5,
    )
    fit_heads(heads, known_cells(model, data, nouns, pictures), epochs)

    deeper = with_first_layer(model)
    layer = deeper.backbone.text_backbone.transformer_layers[0]
    layer._self_attention_layernorm.set_weights([np.ones(old.hidden_dim)])
    attention = layer._self_attention_layer
    name_codes, look_codes = (ops.convert_to_numpy(code) for code in heads.codes)
    asked_names = {w: name_codes[i] for i, n in enumerate(nouns) for w in (n, plural(n))}
    asked_looks = dict(zip(COLOUR_NAMES, look_codes, strict=False))
    thirds = look_codes[len(COLOUR_NAMES) :]
    asked_looks |= {word: thirds[list(which)].mean(0) for word, which in PLACE_WORDS.items()}
    keys = [layer.get_weights() for layer in heads.key_layers]
    facts = heads.facts_layer.get_weights()
    told = [np.concatenate(parts, -1) for parts in zip(*keys, strict=True)]
    for group, key, asked, read in (
        (0, keys[0], asked_names, facts),
        (groups - 1, keys[1], asked_looks, told),
    ):
        query = fitted(words, *asked_codes(model, asked, len(words)))
        size = SHARPER * heads.scale * np.sqrt(width)
        only = [np.zeros((*part.shape[:-1], width)) for part in query]
        for part, product in zip(only, query, strict=True):
            part[..., steady] = size * product
        put(attention._query_dense, group * queries, np.arange(width), *only)
        put(attention._key_dense, group, steady, *key)
        read = [part[..., :width] for part in read]
        put(attention._value_dense, group, np.arange(read[0].shape[-1]), *read)
    write_words(deeper, data, questions)
    return deeper


def hold(model: FastVLMCausalLM) -> None:
    """Freezes what the first layer looks at and reads, and the rows that it is read from."""
    layer = model.backbone.text_backbone.transformer_layers[0]
    attention = layer._self_attention_layer
    looks = (attention._query_dense, attention._key_dense, attention._value_dense)
    for part in (model.backbone.projector, layer._self_attention_layernorm, *looks):
        part.trainable = False


def write_words(model: FastVLMCausalLM, data: DemoData, questions: int) -> None:
    """Fits what the first layer's attention writes to the answers' words.

    Args:
        model: its first layer is a pointing layer.
        data: the recipe's pictures.
        questions: about scenes, whose words are written to.
    """
    layer = model.backbone.text_backbone.transformer_layers[0]
    output = layer._self_attention_layer._output_dense
    read: list[np.ndarray] = []
    written: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    rng = np.random.default_rng(5)
    batch: list[tuple[np.ndarray, str, int, np.ndarray]] = []
    number = 0
    while questions > 0:
        asked = asked_word(model, data, np.random.default_rng((91, number)), number)
        number += 1
        batch += [] if asked is None else [asked]
        if len(batch) < min(32, questions):
            continue
        questions -= len(batch)
        inputs = model.preprocessor.generate_preprocess(
            {
                "prompts": [question for _, question, _, _ in batch],
                "images": np.stack([image[None] for image, _, _, _ in batch]),
            },
            sequence_length=QUESTION_LENGTH,
        )
        with captured(output) as heads:
            run_first_layer(model, inputs)
        rows = heads[0].reshape(len(batch), QUESTION_LENGTH, -1)
        ids, mask = (np.asarray(inputs[key]) for key in ("token_ids", "padding_mask"))
        for i, (_, _, token, words) in enumerate(batch):
            at = np.flatnonzero((ids[i] == token) & mask[i].astype(bool))[-1:]
            others = np.setdiff1d(np.flatnonzero(mask[i]), at)
            quiet = rng.choice(others, 4, replace=False)
            read += [rows[i, at], rows[i, quiet]]
            written += [np.tile(words, (len(at), 1)), np.zeros((len(quiet), len(words)))]
            weights += [np.ones(len(at)), np.full(len(quiet), QUIET_WEIGHT)]
        batch = []
    inputs_, targets, importance = (np.concatenate(part) for part in (read, written, weights))
    kernel, _ = fitted(inputs_, LOUDNESS * targets, importance, 1e-4, bias=False)
    output.set_weights([kernel.reshape(output.kernel.shape)])


def with_first_layer(model: FastVLMCausalLM) -> FastVLMCausalLM:
    """Returns a model of the same answers with one more decoder layer, below the others."""
    layers = range(len(model.backbone.text_backbone.transformer_layers))
    return with_layers(model, [(0, True), *((i, False) for i in layers)])


def known_cells(
    model: FastVLMCausalLM, data: DemoData, nouns: list[str], pictures: int, batch_size: int = 64
) -> Cells:
    """The features of fresh pictures and what is in their cells."""
    numbers = np.zeros(NOTHING + 1, "int32")
    for i, noun in enumerate(nouns):
        label = data.scenes.label_ids.get(noun)
        numbers[NUM_LABELS + SHAPES.index(noun) if label is None else label] = i + 1
    parts: list[tuple[np.ndarray, ...]] = []
    batches = LabelledPictures(data, batch_size, pictures // batch_size, seed=8)
    for step in range(len(batches)):
        images, targets, weights = batches[step]
        features = model.backbone.vision_encoder(as_floats(images), training=False)
        features = ops.convert_to_numpy(features).astype("float32")
        known = weights["cells"].any((1, 2))
        cells = {
            key: value[known].reshape(-1, GRID**2)
            for key, value in targets.items()
            if value.shape[1:] == (GRID, GRID)
        }
        names = numbers[cells["cells"]]
        there = names[..., None] > 0
        coloured = weights["colour"][known].reshape(names.shape) > 0
        colours = np.eye(len(COLOUR_NAMES))[cells["colour"]] * coloured[..., None]
        x, y = ((cells[key] + 0.5) / PLACES for key in ("x", "y"))
        thirds = [np.eye(3)[(3 * place).astype(int)] for place in (x, y)]
        looks = np.concatenate([colours, *thirds], -1) * there
        facts = np.stack([np.ones_like(x), 2 * x - 1, 2 * y - 1, cells["size"] / 4 - 1], -1)
        facts = np.concatenate([facts * there, looks], -1)
        parts.append((features[known], names, looks.astype("float32"), facts.astype("float32")))
    return Cells(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def fit_heads(heads: PointingHeads, cells: Cells, epochs: int, batch_size: int = 128) -> None:
    """Trains projector, keys and values."""
    steps = epochs * len(cells.names) // batch_size
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, steps, alpha=0.01)
    heads.compile(keras.optimizers.AdamW(schedule, weight_decay=0.01))
    targets = {"names": cells.names, "looks": cells.looks, "facts": cells.facts}
    heads.fit(cells.features, targets, batch_size=batch_size, epochs=epochs, verbose=2)


def normalised(rows: Any) -> Any:
    """Rows of root mean square 1, as the decoder's norm makes them."""
    return rows / ops.sqrt(ops.mean(ops.square(rows), -1, keepdims=True) + 1e-6)


def word_vectors(model: FastVLMCausalLM) -> np.ndarray:
    """float32[vocabulary, hidden]: the normalised embedding of every token."""
    table = model.backbone.text_backbone.token_embedding.embeddings
    return ops.convert_to_numpy(normalised(ops.convert_to_tensor(table))).astype("float32")


def asked_codes(
    model: FastVLMCausalLM, codes: dict[str, np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Codes float[count, C] of all tokens, those of a word at its last one, and importances."""
    targets = np.zeros((count, len(next(iter(codes.values())))))
    importance = np.full(count, 0.003)
    for word, code in codes.items():
        last = model.preprocessor.tokenizer(f" {word}")[-1]
        targets[last], importance[last] = code, 1.0
    return targets, importance


def steady_dimensions(width: int, wavelength: float) -> np.ndarray:
    """The dimensions of a head that rotary embedding turns by less than `STEADY` a position."""
    pairs = np.arange(width // 2)
    slow = pairs[wavelength ** (-2 * pairs / width) < STEADY]
    return np.concatenate([slow, slow + width // 2])
