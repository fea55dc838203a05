"""Training records and labelled pictures of all kinds, each a pure function of its number.

Usage:
    data = DemoData(work, clothing=tar, size=64)
    record = data.make_record("scenes", "train", index=7, seed=0)
    image, targets = data.make_labelled(data.kind_at(7, seed=0), "train", 7, seed=0)

`python -m recipes.demo.draw.records --work DIR --clothing TAR` measures pictures a second.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recipes.demo.draw import clothing, easy_vqa, naming, words
from recipes.demo.draw.emoji import SpriteBank, training_bank
from recipes.demo.draw.emoji_labels import NUM_LABELS, TRAIN_ARTISTS, UNSEEN_ARTISTS
from recipes.demo.draw.further_artists import FURTHER_ARTISTS
from recipes.demo.draw.pretrain_labels import (
    IGNORED,
    NOTHING,
    NUM_CELL_CLASSES,
    empty_targets,
    make_targets,
)
from recipes.demo.draw.scene_questions import SHARES, scene_turns, training_shares
from recipes.demo.draw.scenes import SceneMaker, Thing
from recipes.demo.draw.splits import split_id

__all__ = [
    "IGNORED",
    "KINDS",
    "MIX",
    "NOTHING",
    "NUM_CELL_CLASSES",
    "DemoData",
    "Sample",
    "empty_targets",
    "measure",
]
KINDS = ("scenes", "emoji", "words", "easy_vqa", "clothing")
MIX = {"scenes": 0.35, "emoji": 0.30, "words": 0.10, "easy_vqa": 0.10, "clothing": 0.15}
Turns = list[tuple[str, str, str]]
ALL = 9  # turns, more than any kind has
NAMING = ("name", "read")  # types of turns that say what the picture is


@dataclass
class Sample:
    """A picture and what is known about it, before questions are asked."""

    image: np.ndarray
    fact: Any


class DemoData:
    """All pictures and questions of the recipe.

    Args:
        work: the work folder with `raw/` and `cache/`; None leaves shape scenes and built-in words.
        clothing_tar: the tar of clothing photos; not needed once it is cached.
        size: side of the pictures in pixels.
        mix: share of each kind for `kind_at`; need not sum to one.
        upper_words: answer the reading questions in capitals.
        lookups: ask scenes more often what is found at the object that the question names.
        short: one turn a record, the name or the word where a kind has one.
        others: share of such records that ask for something else, half of those for a caption.
        long_words: share of the training words that are long, beside those that happen to be.
        common_words: share of the training words that are common English ones.
    """

    def __init__(
        self,
        work: Path | str | None,
        clothing_tar: Path | str | None = None,
        size: int = 64,
        mix: Mapping[str, float] = MIX,
        upper_words: bool = False,
        lookups: bool = False,
        short: bool = False,
        long_words: float = 0.0,
        common_words: float = 0.0,
        others: float = 0.0,
    ) -> None:
        self.work = None if work is None else Path(work)
        self.clothing_tar = None if clothing_tar is None else Path(clothing_tar)
        self.size = size
        unknown = set(mix) - set(KINDS)
        if unknown:
            raise ValueError(f"kinds {sorted(unknown)} are unknown, expected some of {KINDS}")
        self.mix = dict(mix)
        self.upper_words = upper_words
        self.lookups = lookups
        self.short, self.others = short, others
        self.long_words, self.common_words = long_words, common_words
        self.scene_shares = training_shares() if lookups else SHARES
        self._loaded: dict[tuple[str, str], Any] = {}

    def __reduce__(self) -> tuple[type[DemoData], tuple[Any, ...]]:
        """A copy in another process loads its pictures itself."""
        made_of = (self.work, self.clothing_tar, self.size, self.mix)
        told = (self.upper_words, self.lookups, self.short, self.long_words, self.common_words)
        return type(self), (*made_of, *told, self.others)

    @cached_property
    def bank(self) -> SpriteBank:
        """The drawings of the training artists."""
        return training_bank(self._folder())

    @cached_property
    def names_bank(self) -> SpriteBank:
        """The drawings for pictures of one emoji: those of the artists who draw a part as well."""
        return training_bank(self._folder(), TRAIN_ARTISTS + FURTHER_ARTISTS)

    @cached_property
    def unseen(self) -> SpriteBank:
        """The drawings of the unseen artists, for tests alone."""
        return SpriteBank(self._folder(), UNSEEN_ARTISTS)

    @cached_property
    def scenes(self) -> SceneMaker:
        """The maker of scenes."""
        return SceneMaker(None if self.work is None else self.bank, self.size)

    @cached_property
    def common(self) -> tuple[str, ...]:
        """The common English words for training, if some are asked for."""
        return words.common_words(self._folder()) if self.common_words else ()

    def _folder(self) -> Path:
        if self.work is None:
            raise ValueError("this kind of picture needs the raw downloads: give a work folder")
        return self.work

    def source(self, kind: str, split: str) -> Any:
        """Returns words, easy-VQA or clothing photos of a split, loaded once."""
        if (kind, split) not in self._loaded:
            if kind == "words":
                value: Any = words.split_words(words.lexicon(self.work), split)
            elif kind == "easy_vqa":
                value = easy_vqa.load_easy_vqa(self._folder(), split)
            else:
                value = clothing.load_clothing(self._folder(), self.clothing_tar, split)
            self._loaded[kind, split] = value
        return self._loaded[kind, split]

    def load(self, kinds: tuple[str, ...] = KINDS, split: str = "train") -> None:
        """Loads everything now, so that forked workers share it."""
        for kind in kinds:
            if kind in ("scenes", "emoji"):
                _ = self.scenes.bank if kind == "scenes" else self.names_bank
            else:
                self.source(kind, split)
        _ = self.common

    def kind_at(self, index: int, seed: int) -> str:
        """Returns the kind of the index-th picture of the mix."""
        rng = np.random.default_rng((seed, 99, index))
        shares = np.array([self.mix.get(kind, 0.0) for kind in KINDS])
        return KINDS[int(rng.choice(len(KINDS), p=shares / shares.sum()))]

    def _rng(self, kind: str, split: str, index: int, seed: int) -> np.random.Generator:
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} is unknown, expected one of {KINDS}")
        return np.random.default_rng((seed, KINDS.index(kind), split_id(split), index))

    def sample(self, kind: str, split: str, index: int, rng: np.random.Generator) -> Sample:
        """Draws one picture.

        In the test split of emoji, easy-VQA and clothing, `index` counts through all there is:
        emoji 0 to 649 are EmojiOne's, 650 to 1299 OpenMoji's.
        """
        if kind == "scenes":
            scene = self.scenes.make(rng, split)
            return Sample(scene.image, scene)
        if kind == "words":
            made = self._word(split, rng)
            return Sample(made.image, made)
        if kind == "emoji":
            return self._emoji(split, index, rng)
        if kind == "easy_vqa":
            return self._easy_vqa(split, index, rng)
        photos = self.source(kind, split)
        train = split == "train"
        number = int(rng.integers(len(photos.classes))) if train else index % len(photos.classes)
        image = clothing.draw_photo(rng, photos, number, self.size, train)
        return Sample(image, int(photos.classes[number]))

    def _word(self, split: str, rng: np.random.Generator) -> words.WordPicture:
        source = self.source("words", split)
        if split == "test":
            return words.make_word(rng, source, split, self.size)
        shares = {"long_share": self.long_words, "common_share": self.common_words}
        return words.make_word(rng, source, split, self.size, common=self.common, **shares)

    def _emoji(self, split: str, index: int, rng: np.random.Generator) -> Sample:
        if split == "test":
            artist, number = divmod(index % (2 * NUM_LABELS), NUM_LABELS)
            image = naming.draw_plain(self.unseen, artist, number, self.size)
            return Sample(image, self.unseen.labels[number])
        label = self.names_bank.labels[int(rng.integers(NUM_LABELS))]
        return Sample(naming.draw_train(rng, self.names_bank, label, self.size), label)

    def _easy_vqa(self, split: str, index: int, rng: np.random.Generator) -> Sample:
        source = self.source("easy_vqa", split)
        if split == "test":
            number = index % len(source.images)
            x, y = (float(value) for value in source.centres[number])
            return Sample(easy_vqa.resized(source.images[number], self.size), (number, x, y))
        number = int(rng.integers(len(source.images)))
        image, (x, y) = easy_vqa.change(
            rng, source.images[number], source.centres[number], self.size
        )
        return Sample(image, (number, x, y))

    def typed_record(
        self, kind: str, split: str, index: int, seed: int
    ) -> tuple[np.ndarray, Turns]:
        """Returns the picture and its (type, question, answer) turns."""
        rng = self._rng(kind, split, index, seed)
        sample = self.sample(kind, split, index, rng)
        turns = self._turns(kind, split, sample, rng)
        if self.short:
            turns = [self._one(turns, rng)]
        return sample.image, turns

    def _one(self, turns: Turns, rng: np.random.Generator) -> tuple[str, str, str]:
        """The turn of a short record."""
        named = next((turn for turn in turns if turn[0] in NAMING), turns[0])
        if not self.others or named[0] not in NAMING or rng.random() >= self.others:
            return named
        rest = [turn for turn in turns if turn is not named]
        captions = [turn for turn in rest if turn[0] == "caption"]
        return captions[0] if rng.random() < 0.5 else rest[int(rng.integers(len(rest)))]

    def _turns(self, kind: str, split: str, sample: Sample, rng: np.random.Generator) -> Turns:
        if kind == "scenes":
            count = int(rng.integers(2, 5))
            return scene_turns(rng, sample.fact, count, self.scene_shares)
        if kind == "words":
            return words.word_turns(rng, sample.fact.word, self._count(rng, 1, 4), self.upper_words)
        if kind == "emoji":
            labels = self.bank.labels if split == "train" else self.unseen.labels
            return naming.naming_turns(rng, sample.fact, labels, self._count(rng, 2, 4))
        if kind == "clothing":
            return clothing.clothing_turns(rng, sample.fact, self._count(rng, 1, 4))
        source, number = self.source(kind, split), sample.fact[0]
        told = (source.shapes[number], source.colours[number])
        return easy_vqa.easy_vqa_turns(rng, source.questions[number], told, 6)

    def _count(self, rng: np.random.Generator, least: int, end: int) -> int:
        """How many turns to draw: all of them where one that is not the name is to be chosen."""
        return ALL if self.short and self.others else int(rng.integers(least, end))

    def make_record(self, kind: str, split: str, index: int, seed: int) -> dict[str, Any]:
        """Makes a conversation record; the same arguments always make the same record.

        Returns:
            `image` uint8[size, size, 3], `messages` (user and assistant in turn), `group` = kind.

        Raises:
            ValueError: on an unknown kind or split.
        """
        image, turns = self.typed_record(kind, split, index, seed)
        messages = []
        for _, question, answer in turns:
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": answer})
        return {"image": image, "messages": messages, "group": kind}

    def make_labelled(
        self, kind: str, split: str, index: int, seed: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Makes a picture with targets for supervised pretraining of the encoder.

        Returns:
            uint8[size, size, 3] and int32 targets, -1 where nothing is to be learnt: `name` []
            (0 to 649), `clothing` [] (0 to 9); `cells` [4, 4] (emoji, then shapes, then NOTHING),
            `colour` [4, 4] (index in COLOUR_NAMES), `x`, `y`, `size` [4, 4] of the object in a
            cell, in steps; `letters` [4, 4, 4] by columns of a cell, `strokes` [8, 8, 2] the same
            on a finer grid, `spelling` [4, 4, 6] by the letter's number in the word (0 nothing,
            1 to 26).
        """
        rng = self._rng(kind, split, index, seed)
        sample = self.sample(kind, split, index, rng)
        things = self._shape(split, sample.fact) if kind == "easy_vqa" else ()
        targets = make_targets(kind, sample.fact, self.scenes.label_ids, things)
        return sample.image, targets

    def _shape(self, split: str, fact: tuple[int, float, float]) -> tuple[Thing, ...]:
        number, x, y = fact
        source = self.source("easy_vqa", split)
        shape = source.shapes[number]
        return () if shape is None else (Thing(shape, source.colours[number], x, y, 0.3),)


def measure(data: DemoData, count: int = 400) -> dict[str, float]:
    """Returns pictures a second of each kind on one core, and of the mix."""
    rates = {}
    for kind in data.mix:
        data.make_record(kind, "train", 0, 1)
        start = time.perf_counter()
        for index in range(count):
            data.make_record(kind, "train", index, 0)
        rates[kind] = count / (time.perf_counter() - start)
    total = sum(data.mix.values())
    rates["mix"] = 1 / sum(share / total / rates[kind] for kind, share in data.mix.items())
    return rates


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--work", type=Path, required=True, help="the work folder")
    parser.add_argument("--clothing", type=Path, help="the tar of clothing photos")
    parser.add_argument("--size", type=int, default=64, help="side of the pictures")
    options = parser.parse_args(arguments)
    data = DemoData(options.work, options.clothing, options.size)
    for kind, rate in measure(data).items():
        print(f"{kind:10s} {rate:8.0f} pictures/s on one core")


if __name__ == "__main__":
    main()
