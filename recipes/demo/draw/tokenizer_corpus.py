"""Texts to train the byte-pair vocabulary on.

The words of the reading task enter only as spaced letters, so that no merge is made for them and
an unseen word is spelt as a seen one is, from short pieces.
"""

from __future__ import annotations

from collections.abc import Iterator

from recipes.demo.draw.emoji_labels import EmojiLabel
from recipes.demo.draw.language import counted
from recipes.demo.draw.naming import emoji_caption
from recipes.demo.draw.records import DemoData
from recipes.demo.draw.scenes import NOUNS
from recipes.demo.draw.shapes import COLOUR_NAMES, SHAPES

# how a person may put things in other words than the templates do
EVERYDAY = (
    "hello, what can you see in this image?",
    "please tell me what is shown here.",
    "can you describe it in a few words?",
    "which of them is on the right side, and which is on the left side?",
    "is it an animal, a plant, a food or something else?",
    "how many of those are there in total?",
    "what color does it have? what colour is it?",
    "I do not know. The picture shows nothing like that.",
    "You are a helpful assistant. Answer the question about the picture.",
    "system user assistant",
)


def tokenizer_corpus(data: DemoData, count: int = 20_000, seed: int = 17) -> Iterator[str]:
    """Yields training texts.

    Args:
        data: the recipe's data.
        count: how many records of the mix to take questions and answers from.
        seed: of those records.
    """
    for index in range(count):
        kind = data.kind_at(index, seed)
        if kind not in ("words", "easy_vqa"):
            record = data.make_record(kind, "train", index, seed)
            yield from (message["content"] for message in record["messages"])
        elif kind == "words":
            yield from _reading(data, index, seed)
        elif index % 4 == 0:
            record = data.make_record(kind, "train", index, seed)
            yield from (message["content"] for message in record["messages"])
    yield from fixed_texts(data.bank.labels)


def _reading(data: DemoData, index: int, seed: int) -> Iterator[str]:
    """Yields the questions of a reading record, and of its answers only spaced letters."""
    _, turns = data.typed_record("words", "train", index, seed)
    for kind, question, answer in turns:
        yield question
        if kind not in ("read", "caption"):
            yield answer


def fixed_texts(labels: tuple[EmojiLabel, ...]) -> Iterator[str]:
    """Yields each label, tag, noun and count a few times, and everyday sentences."""
    for label in labels:
        for _ in range(4):
            yield f"{label.name}. {emoji_caption(label)} {label.kind}"
        yield ", ".join(label.tags)
    words = [f"{colour} {shape}" for colour in COLOUR_NAMES for shape in SHAPES]
    for word in [*NOUNS, *words]:
        for count in range(1, 6):
            yield f"{counted(word, count)}, {word}"
    for _ in range(50):
        yield from EVERYDAY
