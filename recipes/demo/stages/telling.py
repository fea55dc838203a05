"""A trained decoder learns to tell what name tags say, beside what it did before.

The towers do not learn, so what they see is computed once and kept: rows of drawings with their
conversations, rows of photographs. Three kinds of records make a batch:

- drawings, with the conversations that they had before;
- made-up tags: names and probabilities are drawn, no picture is needed, and every name there is
  gets its turn; the other tower's rows are those of any photograph;
- photographs, with the tags that the photo tower has of them.

What is to be said follows from the tags alone (`recipes.demo.photos.templates`), so a probability
of the tags and what the answer sounds like always agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from dl_techniques import (
    FastVLMBackbone,
    FastVLMCausalLM,
    FastVLMCausalLMPreprocessor,
    FastVLMImageConverter,
    Towers,
)
from dl_techniques.layers.name_tags import NameTags, Tags
from dl_techniques.models.vlm.fast_vlm.prompt.encoding import ConversationEncoder
from dl_techniques.models.vlm.fast_vlm.prompt.records import to_records
from recipes.demo.photos.names import PEOPLE
from recipes.demo.photos.templates import NOTHING, Facts, some_turns
from recipes.demo.stages.drawn_turns import asked_as_photographs
from recipes.demo.stages.finetune import with_answers_alone
from recipes.demo.stages.name_words import (
    MarkingTokenizer,
    longer_decoder,
    marked,
    name_ids,
    with_names,
)

DRAWN_CERTAINTIES = ((0.55, 0.7, 1.0), (0.2, 0.4, 0.7), (0.25, 0.0, 0.4))
"""Share of the made-up tags, and the probability of their best name from, to."""
NAMES_AT_ONCE = 12
"""Names that a made-up picture could be."""
LOUD = 8.0
"""Length of a name's rows, in lengths of words."""
NUMBER_LENGTH = 10.0
"""Length of what a number of 1 adds to a row, before `LOUD`; words have some 24."""
SEED = 0
TURNS = (1, 1, 1, 2)
"""Of the conversations of a batch at most; one of these numbers."""


@dataclass(frozen=True)
class Seen:
    """What the towers saw of pictures.

    Attributes:
        maps: float16[n, m, C], the first tower's rows.
        tags: float32[k, 1 + K * L, W], rows of tags. Of drawings there are fewer than maps: those
            of any other drawing do as well, for they tell nothing.
    """

    maps: np.ndarray
    tags: np.ndarray


@dataclass(frozen=True)
class Photographs:
    """Photographs as the towers see them.

    Attributes:
        maps: float16[k, m, C], the first tower's rows of some of them.
        places: int[n], among the maps: the photograph's own, or that of one of its kind.
        tags: what the photo tower says of n photographs, as arrays.
        kinds: the set that each one belongs to.
    """

    maps: np.ndarray
    places: np.ndarray
    tags: Tags
    kinds: Sequence[str]


def cached_model(
    model: FastVLMCausalLM, rows: int, width: int, names: Sequence[str] = ()
) -> FastVLMCausalLM:
    """The same decoder behind rows that are given instead of pictures, with a token a name.

    The projector grows: what it made of the first channels stays, words behind them pass through
    as they are, and what else there is begins small.

    Args:
        model: a whole model; its decoder and projector are copied.
        rows: of a picture, T.
        width: channels of a row.
        names: see `name_words`.
    """
    backbone, words = model.backbone, model.preprocessor
    tokenizer = with_names(words.tokenizer, names)
    given = keras.Input((1, rows, width), name="rows")
    encoder = keras.Model(given, keras.layers.Identity(name="as_given")(given), name="given_rows")
    decoder = longer_decoder(backbone.text_backbone, words.tokenizer, tokenizer)
    hidden = backbone.projector.hidden_dim + 2 * backbone.hidden_dim
    grown = FastVLMBackbone(encoder, decoder, projector_dim=hidden)
    grow_projector(backbone.projector, grown.projector)
    preprocessor = FastVLMCausalLMPreprocessor(
        tokenizer,
        FastVLMImageConverter((1, 1)),  # rows take the picture's place
        sequence_length=words.sequence_length,
        num_image_tokens=rows,
        system_prompt=words.system_prompt,
        template=words.template,
    )
    return FastVLMCausalLM(grown, preprocessor)


def grow_projector(before: Any, after: Any) -> None:
    """Gives a projector the weights of a smaller one, and a way through for words.

    `gelu(x) - gelu(-x)` is x: with two hidden units a channel, the decoder's embeddings that stand
    behind the first channels of a row come out as they are, but `LOUD` times as long. Rows of a
    picture are that long, and what the decoder's layers add to a row as short as a word's would
    drown it before the layers that speak read it. Each of the channels behind the words, which tell
    probabilities, ranks and places, begins as a direction of its own in the same way.
    """
    first, second = (
        np.array(keras.ops.convert_to_numpy(layer.kernel))
        for layer in (after.dense_1, after.dense_2)
    )
    known, own = (int(side) for side in before.dense_1.kernel.shape)
    width = int(before.output_dim)
    first[:, :own] *= 0.1
    first[:known, own:] = 0.0
    first[:known, :own] = keras.ops.convert_to_numpy(before.dense_1.kernel)
    first[known:, own:] *= 0.1
    words = first[known : known + width]
    words[...] = 0.0
    words[:, own:] = np.concatenate([np.eye(width), -np.eye(width)], 1)
    numbers = np.random.default_rng(SEED).standard_normal((len(first) - known - width, width))
    numbers *= NUMBER_LENGTH / np.sqrt(width)
    first[known + width :, own:] = np.concatenate([numbers, -numbers], 1)
    second[:own] = keras.ops.convert_to_numpy(before.dense_2.kernel)
    second[own:] = LOUD * np.concatenate([np.eye(width), -np.eye(width)], 0)
    bias = np.zeros(first.shape[1])
    bias[:own] = keras.ops.convert_to_numpy(before.dense_1.bias)
    after.dense_1.set_weights([first, bias])
    after.dense_2.set_weights([second, before.dense_2.bias])


def facts_of(tags: NameTags, found: Tags, row: int, kind: str = "") -> Facts:
    """What one row of tags says, for templates; nothing is known of what shows `NOTHING`."""
    if kind == NOTHING:
        found = found._replace(known=np.zeros_like(found.known), facts=np.zeros_like(found.facts))
    chances = np.asarray(found.names[row], "float64") * float(found.known[row])
    best = np.argsort(-chances)[: tags.num_best]
    names = tuple((tags.names[i], float(chances[i])) for i in best)
    person = bool(found.facts[row][tags.facts.index("person")] > 0.5)
    return Facts(names, float(found.known[row]), person or names[0][0] in PEOPLE, kind)


def made_up(tags: NameTags, facts: np.ndarray, count: int, rng: np.random.Generator) -> Tags:
    """Tags that no picture has.

    Args:
        tags: the layer.
        facts: float[n, F] of photographs, to choose from.
        count: how many.
        rng: draws.
    """
    names = np.zeros((count, len(tags.names)), "float32")
    known = np.ones(count, "float32")
    told = facts[rng.integers(len(facts), size=count)].copy()
    person = tags.facts.index("person")
    shares = np.array([share for share, _, _ in DRAWN_CERTAINTIES])
    for row in range(count):
        _, low, high = DRAWN_CERTAINTIES[rng.choice(len(shares), p=shares / shares.sum())]
        best = rng.uniform(low, high)
        # below the plainest level either nothing stands out, or it is none of the names
        least = max(best, 0.02)
        known[row] = rng.uniform(least, 1.0) if rng.random() < 0.5 else min(1.0, least * 1.05)
        top = best / known[row]
        others = rng.permutation(len(tags.names))[:NAMES_AT_ONCE]
        rest = rng.dirichlet(np.full(len(others) - 1, rng.choice([0.15, 0.6]))) * (1 - top)
        names[row, others[0]] = top
        names[row, others[1:]] = np.minimum(rest, top * 0.98)
        if rng.random() < 0.35:
            told[row, person] = rng.choice([rng.uniform(0.6, 1.0), rng.uniform(0.0, 0.3)])
        if tags.names[int(names[row].argmax())] in PEOPLE:
            told[row, person] = rng.uniform(0.6, 1.0)
    return Tags(names, known, told.astype("float32"))


class Telling:
    """Batches of rows and conversations: `batch(epoch, index)`.

    Args:
        model: from `cached_model`.
        tags: the layer of name tags, its table of names filled.
        drawings: rows of drawings.
        conversations: of each drawing.
        photographs: rows of photographs.
        steps: batches of an epoch.
        batch_size: records of a batch.
        seed: of all draws.
        shares: of batches that are drawings, made-up tags, photographs.
        buckets: lengths of rows.
    """

    def __init__(
        self,
        model: FastVLMCausalLM,
        tags: NameTags,
        drawings: Seen,
        conversations: Sequence[Any],
        photographs: Photographs,
        steps: int,
        batch_size: int = 32,
        seed: int = 0,
        shares: Mapping[str, float] | None = None,
        buckets: Sequence[int] = (40, 48, 56, 64, 72, 80, 88, 96, 112, 128),
    ) -> None:
        self.model, self.tags = model, tags
        self.drawings, self.conversations = drawings, conversations
        self.photographs = photographs
        self.steps, self.batch_size, self.seed = steps, batch_size, seed
        self.shares = dict(shares or {"drawings": 0.5, "made_up": 0.3, "photographs": 0.2})
        self.buckets = tuple(buckets)
        self.width = drawings.maps.shape[-1] + tags.width
        self.rows = drawings.maps.shape[1] + tags.num_rows
        words = model.preprocessor
        tokenizer: Any = MarkingTokenizer(words.tokenizer, tags.names)
        self.encoder = ConversationEncoder(
            tokenizer,
            words.image_converter,
            words.num_image_tokens,
            words.system_prompt,
            words.template,
        )
        self.place_of = {name: place for place, name in enumerate(tags.names)}

    def __len__(self) -> int:
        return self.steps

    def batch(self, epoch: int, index: int) -> Any:
        """`(x, y, sample_weight)` of one kind of records."""
        rng = np.random.default_rng((self.seed, epoch, index))
        shares = np.array(list(self.shares.values()))
        kind = list(self.shares)[int(rng.choice(len(shares), p=shares / shares.sum()))]
        maps, tags, messages = getattr(self, f"_{kind}")(rng)
        return self._packed(maps, tags, messages)

    def _drawings(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[Any]]:
        seen = self.drawings
        at = rng.integers(len(seen.maps), size=self.batch_size)
        tags = seen.tags[rng.integers(len(seen.tags), size=self.batch_size)]
        turns_kept = int(rng.choice(TURNS))
        told = [asked_as_photographs(rng, self.conversations[int(i)][: 2 * turns_kept]) for i in at]
        return seen.maps[at], tags, told

    def _made_up(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[Any]]:
        photos = self.photographs
        found = made_up(self.tags, photos.tags.facts, self.batch_size, rng)
        maps = photos.maps[rng.integers(len(photos.maps), size=self.batch_size)]
        return maps, rows_of(self.tags, found), self._told(rng, found, [""] * self.batch_size)

    def _photographs(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[Any]]:
        photos = self.photographs
        at = rng.integers(len(photos.tags.known), size=self.batch_size)
        found = Tags(*(np.asarray(part)[at] for part in photos.tags))
        maps = photos.maps[photos.places[at]]
        kinds = [photos.kinds[int(i)] for i in at]
        return maps, rows_of(self.tags, found), self._told(rng, found, kinds)

    def _told(self, rng: np.random.Generator, found: Tags, kinds: Sequence[str]) -> list[Any]:
        count = int(rng.choice(TURNS))
        records = []
        for row, kind in enumerate(kinds):
            facts = facts_of(self.tags, found, row, kind)
            messages = []
            for _, question, answer in some_turns(rng, facts, count):
                messages.append({"role": "user", "content": question})
                said = [name for name, _ in facts.names]
                answer = marked(answer, said, [self.place_of[name] for name in said])
                messages.append({"role": "assistant", "content": answer})
            records.append(messages)
        return records

    def _packed(self, maps: np.ndarray, tags: np.ndarray, messages: Sequence[Any]) -> Any:
        preprocessor = self.model.preprocessor
        dot = np.zeros((1, 1, 3), "uint8")
        records = [{"images": [dot], "messages": told} for told in messages]
        encoded = self.encoder.encode(to_records(records), True, [""] * len(records))
        longest = max(len(row.token_ids) for row in encoded) - 1
        length = next((b for b in self.buckets if b >= longest), self.buckets[-1])
        x, y, weight = preprocessor.pack_for_training(encoded, length, 1)
        x["images"] = self.side_by_side(maps, tags)[:, None]
        return with_answers_alone((x, y, weight))

    def side_by_side(self, maps: np.ndarray, tags: np.ndarray) -> np.ndarray:
        """float[B, m, C] and float[B, 1 + K * L, W] -> float32[B, 1, T, C + W]."""
        rows = np.zeros((len(maps), 1, self.rows, self.width), "float32")
        own = maps.shape[1]
        rows[:, 0, :own, : maps.shape[2]] = maps
        rows[:, 0, own:, maps.shape[2] :] = tags
        return rows


def rows_of(tags: NameTags, found: Tags) -> np.ndarray:
    """Rows of tags as arrays: float32[B, 1 + K * L, W]."""
    found = Tags(*(keras.ops.convert_to_tensor(part, "float32") for part in found))
    rows: np.ndarray = keras.ops.convert_to_numpy(tags.rows(found))[:, 0]
    return rows


def name_table(tags: NameTags, model: FastVLMCausalLM) -> np.ndarray:
    """The embeddings of every name's two tokens side by side: float32[N, L * E], L = 2.

    Args:
        tags: the layer.
        model: from `cached_model`, with tokens for the names.
    """
    embeddings = keras.ops.convert_to_numpy(model.backbone.token_embedding.embeddings)
    table = embeddings[name_ids(model.preprocessor.tokenizer, tags.names)]
    return np.asarray(table.reshape(len(table), -1), "float32")


def whole_model(
    told: FastVLMCausalLM, towers: Towers, size: int, sequence_length: int
) -> FastVLMCausalLM:
    """The model that takes pictures, of one that was trained on rows.

    Args:
        told: from `cached_model`, trained.
        towers: that made the rows.
        size: side of the pictures.
        sequence_length: of the preprocessor.
    """
    before, words = told.backbone, told.preprocessor
    decoder = type(before.text_backbone).from_config(before.text_backbone.get_config())
    backbone = FastVLMBackbone(towers, decoder, projector_dim=before.projector_dim)
    decoder.set_weights(before.text_backbone.get_weights())
    backbone.projector.set_weights(before.projector.get_weights())
    preprocessor = FastVLMCausalLMPreprocessor(
        words.tokenizer,
        FastVLMImageConverter((size, size)),
        sequence_length=sequence_length,
        num_image_tokens=words.num_image_tokens,
        system_prompt=words.system_prompt,
        template=words.template,
    )
    return FastVLMCausalLM(backbone, preprocessor)
