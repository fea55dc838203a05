"""Pictures of one emoji: what it is called, what kind of thing it is, what goes with it."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

import numpy as np
from PIL import Image

from recipes.demo.draw.augment import composite, damage, emoji_ground, outline, recolour, warp
from recipes.demo.draw.emoji import SpriteBank
from recipes.demo.draw.emoji_labels import EmojiLabel
from recipes.demo.draw.language import article, pick, sentence
from recipes.demo.draw.scene_questions import CAPTION_QUESTIONS

NAME_QUESTIONS = (
    "what is this?",
    "what is this a picture of?",
    "name this emoji.",
    "what emoji is this?",
)
KIND_QUESTIONS = ("what kind of thing is this?", "what kind of thing is it?", "what type is it?")
TAG_QUESTIONS = ("what words go with it?", "which words describe it?", "what tags fit this?")
# names of what cannot be counted; plurals are told by their ending
_MASS = frozenset(
    "cooking,construction,camping,bowling,badminton,tennis,bacon,popcorn,spaghetti,oden,sake,sushi,"
    "bread,baguette bread,shaved ice,cooked rice,curry rice,green salad,fog,foggy,sunrise,sunset,"
    "fire,ping pong,ice hockey,field hockey,building construction,high voltage,custard,"
    "hammer and pick,hammer and wrench,fork and knife,bow and arrow,couch and lamp,performing arts,"
    "sunrise over mountains,night with stars,cityscape at dusk,globe with meridians,mount fuji,"
    "tokyo tower,locked,unlocked,statue of liberty,money with wings,woman's clothes,cherries".split(
        ","
    )
)
_SINGULAR_S = ("ss", "us", "rhinoceros", "hibiscus")


def draw_train(
    rng: np.random.Generator, bank: SpriteBank, label: EmojiLabel, size: int
) -> np.ndarray:
    """Draws one emoji with everything changed that may be: uint8[size, size, 3]."""
    artists = np.flatnonzero(bank.drawn[:, label.index])
    artist = int(artists[int(rng.integers(len(artists)))])
    sprite, half = bank.sprites[artist, label.index], bank.half[artist, label.index]
    rgba = warp(rng, sprite, half, size, label.name)
    if rng.random() < 0.75:
        rgba = recolour(rng, rgba, label.name)
    if rng.random() < 0.25:
        rgba = outline(rng, rgba)
    image = damage(rng, composite(rgba, emoji_ground(rng, size)))
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def draw_plain(
    bank: SpriteBank, artist: int, label: int, size: int, margin: float = 0.06
) -> np.ndarray:
    """Draws one emoji upright and whole on white: uint8[size, size, 3]."""
    side = round(size * (1 - 2 * margin))
    small = bank.image(artist, label).resize((side, side), Image.Resampling.LANCZOS)
    rgba = np.zeros((size, size, 4), np.float32)
    start = (size - side) // 2
    rgba[start : start + side, start : start + side] = np.asarray(small, np.float32)
    image = composite(rgba, np.full((size, size, 3), 255, np.float32))
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def emoji_caption(label: EmojiLabel) -> str:
    """Returns "A drawing of a dog."."""
    return sentence(f"a drawing of {a_name(label)}")


def a_name(label: EmojiLabel) -> str:
    """Returns "a dog", "grapes", "a clock showing six-thirty"."""
    name = label.name
    if name.endswith(("o'clock", "-thirty")):
        return f"a clock showing {name}"
    first = re.split(" with | showing | over | in | on ", name)[0]
    plural = first.endswith("s") and not first.endswith(_SINGULAR_S)
    return name if plural or name in _MASS else article(name)


@lru_cache(maxsize=4)
def common_tags(labels: tuple[EmojiLabel, ...]) -> tuple[tuple[str, ...], ...]:
    """Returns up to three tags of each label: those that most other labels share, in words."""
    shared = Counter(tag for label in labels for tag in label.tags)

    def best(label: EmojiLabel) -> tuple[str, ...]:
        tags = [t for t in label.tags if shared[t] >= 2 and t.isalpha() and t != label.kind]
        return tuple(sorted(tags, key=lambda tag: (-shared[tag], tag))[:3])

    return tuple(best(label) for label in labels)


@lru_cache(maxsize=4)
def _by_kind(labels: tuple[EmojiLabel, ...]) -> dict[str, list[EmojiLabel]]:
    """The labels of each kind, in order."""
    groups: dict[str, list[EmojiLabel]] = {}
    for label in labels:
        groups.setdefault(label.kind, []).append(label)
    return groups


def _other(
    rng: np.random.Generator, label: EmojiLabel, labels: tuple[EmojiLabel, ...]
) -> EmojiLabel:
    """Returns another label, half the time of the same kind."""
    same = [one for one in _by_kind(labels)[label.kind] if one is not label]
    if same and rng.random() < 0.5:
        return same[int(rng.integers(len(same)))]
    return labels[int(rng.integers(len(labels)))]


def naming_turns(
    rng: np.random.Generator, label: EmojiLabel, labels: tuple[EmojiLabel, ...], count: int
) -> list[tuple[str, str, str]]:
    """Returns (type, question, answer): the name always, then others."""
    turns = [("name", pick(rng, NAME_QUESTIONS), label.name)]
    other = _other(rng, label, labels)
    truth = bool(rng.random() < 0.5) or other.index == label.index
    asked = label if truth else other
    more = [("kind", pick(rng, KIND_QUESTIONS), label.kind)]
    more.append(("caption", pick(rng, CAPTION_QUESTIONS), emoji_caption(label)))
    question = pick(rng, ("is this {}?", "is it {}?")).format(a_name(asked))
    more.append(("is_it", question, "yes" if truth else "no"))
    tags = common_tags(labels)[label.index]
    if tags:
        more.append(("tags", pick(rng, TAG_QUESTIONS), ", ".join(tags)))
    order = rng.permutation(len(more))[: count - 1]
    turns += [more[int(i)] for i in order]
    return [turns[int(i)] for i in rng.permutation(len(turns))]
