"""Writes the evaluation sets: pictures, questions, answers, question-only baselines.

`python -m recipes.demo.benchmark --work DIR --clothing TAR --out DIR` makes one folder a set,
with `records.jsonl` and pictures. A line holds `image` (a file name), `question`, `answer`, `type`
and `baseline_question_only`: the answer that a model would give that never sees the picture, which
is the most frequent training answer to exactly this question, else to questions of its type. The
sets of photographs are made by `python -m recipes.demo.photo_benchmark`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from PIL import Image

from recipes.demo.draw import clothing, naming, words
from recipes.demo.draw.easy_vqa import question_type, resized
from recipes.demo.draw.emoji_labels import UNSEEN_ARTISTS
from recipes.demo.draw.records import DemoData
from recipes.demo.draw.scene_questions import CAPTION_QUESTIONS, OPEN_TYPES

CAPTIONED = ("scenes", *UNSEEN_ARTISTS[:1], "clothing", "words")
SETS = tuple(
    name
    for kind in ("easy_vqa", "scenes", *UNSEEN_ARTISTS, "clothing", "words")
    for name in ([kind, f"{kind}_captions"] if kind in CAPTIONED else [kind])
)
DESCRIBE = CAPTION_QUESTIONS[0]  # what `fastvlm describe` asks
SEED = 2024
TRAINING_SEED = 7
MIN_SUPPORT = 5


class Question(NamedTuple):
    """A question of a set: the first three are all there is to most; the others are the fields of
    `evaluation.QuestionRecord` with these names."""

    kind: str
    question: str
    answer: str
    accepted: tuple[str, ...] = ()
    refusal: bool = False
    things: tuple[str, ...] = ()


Turn = tuple[str, str, str] | Question
Item = tuple[np.ndarray | Image.Image | bytes, Sequence[Turn]]


@dataclass
class QuestionOnly:
    """The most frequent training answer by question, by type, and over all.

    Example:
        >>> guess = QuestionOnly.learn([("colour", "what color is it?", "red")] * 5)
        >>> guess("colour", "what color is the sky?")
        'red'
    """

    by_question: dict[str, Counter[str]]
    by_type: dict[str, Counter[str]]
    over_all: Counter[str]

    @classmethod
    def learn(cls, turns: Iterable[tuple[str, str, str]]) -> Self:
        """Counts (type, question, answer) triples."""
        by_question: dict[str, Counter[str]] = defaultdict(Counter)
        by_type: dict[str, Counter[str]] = defaultdict(Counter)
        for kind, question, answer in turns:
            by_question[question][answer] += 1
            by_type[kind][answer] += 1
        over_all = sum(by_type.values(), Counter())
        return cls(dict(by_question), dict(by_type), over_all)

    def __call__(self, kind: str, question: str) -> str:
        """Guesses an answer; of two things offered in the question, the first."""
        offered = re.fullmatch(r"which is \w+, the (.+) or the .+\?", question)
        if offered:
            return offered.group(1)
        counts = self.by_question.get(question, Counter())
        if counts.total() < MIN_SUPPORT:
            counts = self.by_type.get(kind, self.over_all)
        return counts.most_common(1)[0][0]


def training_turns(data: DemoData, kind: str, count: int) -> Iterator[tuple[str, str, str]]:
    """Yields the questions and answers of training records; of easy-VQA all there are."""
    if kind == "easy_vqa":
        for pairs in data.source("easy_vqa", "train").questions:
            yield from ((question_type(pair), *pair) for pair in pairs)
        return
    for index in range(count):
        yield from data.typed_record(kind, "train", index, TRAINING_SEED)[1]


def easy_vqa_items(data: DemoData) -> Iterator[Item]:
    """Yields the public test split: 1 000 pictures, 9 673 questions."""
    source = data.source("easy_vqa", "test")
    for image, pairs in zip(source.images, source.questions, strict=True):
        yield resized(image, data.size), [(question_type(pair), *pair) for pair in pairs]


def scene_items(data: DemoData, count: int, captions: bool) -> Iterator[Item]:
    """Yields scenes with a held-out combination: their closed questions, or captions and lists."""
    index, made = (0, 0) if not captions else (10_000_000, 0)
    while made < count:
        image, turns = data.typed_record("scenes", "test", index, SEED)
        kept = [turn for turn in turns if (turn[0] in OPEN_TYPES) == captions]
        index += 1
        if kept:
            made += 1
            yield image, kept


def naming_items(data: DemoData, artist: str, captions: bool = False) -> Iterator[Item]:
    """Yields all 650 drawings of an unseen artist on white."""
    row = UNSEEN_ARTISTS.index(artist)
    for label in data.unseen.labels:
        image = naming.draw_plain(data.unseen, row, label.index, data.size)
        asked = ("name", naming.NAME_QUESTIONS[0], label.name)
        yield image, [("caption", DESCRIBE, naming.emoji_caption(label)) if captions else asked]


def clothing_items(tar: Path, captions: bool = False) -> Iterator[Item]:
    """Yields the 341 validation photos, whole and at their own size."""
    for label, picture in clothing.read_photos(tar, "test"):
        name = clothing.CLASSES[label]
        asked = ("name", clothing.NAME_QUESTIONS[0], name)
        yield picture, [("caption", DESCRIBE, clothing.caption(name)) if captions else asked]


def word_items(data: DemoData, count: int, captions: bool = False) -> Iterator[Item]:
    """Yields pictures of held-out words, each word once before any comes again."""
    held = data.source("words", "test")
    order = np.random.default_rng(SEED).permutation(len(held))
    for i in range(count):
        word = held[int(order[i % len(held)])]
        image = words.draw_word(np.random.default_rng((SEED, i)), word, data.size).image
        shown = word.upper() if data.upper_words else word
        asked = ("read", words.READ_QUESTIONS[0], shown)
        yield image, [("caption", DESCRIBE, words.caption(shown)) if captions else asked]


def write_set(folder: Path, items: Iterable[Item], guess: QuestionOnly) -> tuple[int, int, float]:
    """Writes one set, complete or not at all; a picture in bytes is a JPEG file already.

    Returns:
        The numbers of pictures and questions, and the share that the question-only guess hits.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    lines: list[dict[str, Any]] = []
    number = 0
    for number, (image, turns) in enumerate(items, 1):
        name = _write_picture(partial / f"{number:04d}", image)
        lines += [_line(name, turn, guess) for turn in turns]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (partial / "records.jsonl").write_text(text, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    hits = sum(line["answer"] == line["baseline_question_only"] for line in lines)
    return number, len(lines), hits / len(lines)


def _write_picture(path: Path, image: np.ndarray | Image.Image | bytes) -> str:
    """Writes a picture and returns its file name."""
    if isinstance(image, bytes):
        path = path.with_suffix(".jpg")
        path.write_bytes(image)
        return path.name
    path = path.with_suffix(".png")
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(path)
    return path.name


def _line(name: str, turn: Turn, guess: QuestionOnly) -> dict[str, Any]:
    asked = Question(*turn)
    line = {"image": name, "question": asked.question, "answer": asked.answer, "type": asked.kind}
    line["baseline_question_only"] = guess(asked.kind, asked.question)
    further = {"accepted": asked.accepted, "refusal": asked.refusal, "things": asked.things}
    return {**line, **{key: value for key, value in further.items() if value}}


def build(data: DemoData, out: Path, names: Iterable[str] = SETS, support: int = 20_000) -> None:
    """Writes the evaluation sets and prints their sizes.

    Args:
        data: the recipe's data.
        out: the folder to write to.
        names: which sets.
        support: how many training records a question-only guess is learnt from.

    Raises:
        ValueError: on an unknown set, or clothing without its tar.
    """
    guesses: dict[str, QuestionOnly] = {}
    for name in names:
        if name not in SETS:
            raise ValueError(f"set {name!r} is unknown, expected some of {SETS}")
        kind, _ = asked_of(name)
        kind = "emoji" if kind in UNSEEN_ARTISTS else kind
        if kind not in guesses:
            guesses[kind] = QuestionOnly.learn(training_turns(data, kind, support))
        pictures, questions, share = write_set(out / name, _items(data, name), guesses[kind])
        print(f"{name:16s} {pictures:5d} pictures {questions:6d} questions", end="  ")
        print(f"question only {100 * share:5.1f} %")


def asked_of(name: str) -> tuple[str, bool]:
    """The pictures of a set, and whether it asks for captions.

    Example:
        >>> asked_of("words_captions"), asked_of("easy_vqa")
        (('words', True), ('easy_vqa', False))
    """
    kind = name.removesuffix("_captions")
    return kind, kind != name


def _items(data: DemoData, name: str) -> Iterator[Item]:
    kind, captions = asked_of(name)
    if kind == "easy_vqa":
        return easy_vqa_items(data)
    if kind == "scenes":
        return scene_items(data, 300 if captions else 1000, captions)
    if kind in UNSEEN_ARTISTS:
        return naming_items(data, kind, captions)
    if kind == "words":
        return word_items(data, 500, captions)
    if data.clothing_tar is None:
        raise ValueError("the clothing set needs the photos: give the tar by --clothing")
    return clothing_items(data.clothing_tar, captions)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="the work folder")
    parser.add_argument("--clothing", type=Path, help="the tar of clothing photos")
    parser.add_argument("--out", type=Path, required=True, help="where the sets go")
    parser.add_argument("--size", type=int, default=64, help="side of the drawn pictures")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--upper-words", action="store_true", help="words in capitals in answers")
    options = parser.parse_args(arguments)
    upper = options.upper_words
    data = DemoData(options.work, options.clothing, options.size, upper_words=upper)
    build(data, options.out, options.sets)


if __name__ == "__main__":
    main()
