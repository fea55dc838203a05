"""The 650 concrete emoji labels that all six sets draw, and what belongs to each.

The rule: take emojibase's English labels in the groups animals-nature, food-drink,
travel-places, activities and objects (3 to 7); turn a label into a slug (ASCII, lower case, runs
of anything else to one "-", apostrophes dropped); keep it when all six icon sets have an icon or
an alias of exactly that name. With the pinned package versions that leaves 650.
"""

from __future__ import annotations

import json
import re
import tarfile
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from recipes.demo.draw.fetch import npm_file

TRAIN_ARTISTS = ("noto", "twemoji", "fluent-emoji-flat", "fluent-emoji")
UNSEEN_ARTISTS = ("emojione", "openmoji")
assert not set(TRAIN_ARTISTS) & set(UNSEEN_ARTISTS), "an unseen artist must never be trained on"
ARTISTS = TRAIN_ARTISTS + UNSEEN_ARTISTS
CONCRETE_GROUPS = (3, 4, 5, 6, 7)
NUM_LABELS = 650

# emojibase's subgroups in words a person would use for the kind of thing
KINDS = {
    "animal-mammal": "animal", "animal-bird": "bird", "animal-amphibian": "animal",
    "animal-reptile": "reptile", "animal-marine": "sea animal", "animal-bug": "small creature",
    "plant-flower": "flower", "plant-other": "plant", "food-fruit": "fruit",
    "food-vegetable": "vegetable", "food-prepared": "food", "food-asian": "asian food",
    "food-sweet": "sweet", "drink": "drink", "dishware": "dishes", "place-map": "map",
    "place-geographic": "landscape", "place-building": "building",
    "place-religious": "religious place", "place-other": "place",
    "transport-ground": "land transport", "transport-water": "water transport",
    "transport-air": "air transport", "hotel": "hotel item", "time": "clock",
    "sky-weather": "sky and weather", "event": "celebration", "award-medal": "award",
    "sport": "sport", "game": "game", "arts-crafts": "art", "clothing": "clothing",
    "sound": "sound", "music": "music", "musical-instrument": "musical instrument",
    "phone": "phone", "computer": "computer", "light-video": "light and film",
    "book-paper": "book or paper", "money": "money", "mail": "mail", "writing": "writing tool",
    "office": "office item", "lock": "lock", "tool": "tool", "science": "science",
    "medical": "medicine", "household": "household item", "other-object": "object",
}  # fmt: skip


@dataclass(frozen=True, eq=False)  # compared by identity: all labels are hashed for each record
class EmojiLabel:
    """One label.

    Attributes:
        index: 0 to 649, in emojibase's order.
        name: the label in lower case, ASCII.
        slug: the icon's name in the icon sets.
        kind: the kind of thing, in words.
        tags: emojibase's tags, lower case, without the name itself.
    """

    index: int
    name: str
    slug: str
    kind: str
    tags: tuple[str, ...]


def plain(text: str) -> str:
    """Returns text in lower-case ASCII, with straight apostrophes."""
    text = text.replace("\u2019", "'")
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return text.lower()


def slug_of(label: str) -> str:
    """Returns the icon sets' name of a label.

    Example:
        >>> slug_of("woman\u2019s hat")
        'womans-hat'
    """
    return re.sub(r"[^a-z0-9]+", "-", plain(label).replace("'", "")).strip("-")


def read_json(archive: Path, member: str) -> Any:
    """Reads one JSON file out of an npm package."""
    with tarfile.open(archive) as tar:
        handle = tar.extractfile(member)
        if handle is None:
            raise FileNotFoundError(f"{member} is no file in {archive}")
        return json.load(handle)


def icon_names(work: Path, artist: str) -> set[str]:
    """Returns the names of all icons and aliases of one set."""
    icons = read_json(npm_file(work, f"@iconify-json/{artist}"), "package/icons.json")
    return set(icons["icons"]) | set(icons.get("aliases", {}))


def _label(index: int, entry: dict[str, Any], subgroups: dict[str, str]) -> EmojiLabel:
    name = plain(entry["label"])
    tags = tuple(t for t in map(plain, entry.get("tags", [])) if t != name and t.strip())
    kind = KINDS[subgroups[str(entry["subgroup"])]]
    return EmojiLabel(index, name, slug_of(entry["label"]), kind, tags)


@lru_cache(maxsize=2)
def emoji_labels(work: Path) -> tuple[EmojiLabel, ...]:
    """Returns the 650 labels.

    Raises:
        FileNotFoundError: when the raw packages are not there.
        ValueError: when the rule does not give 650 labels (another package version).
    """
    base = npm_file(work, "emojibase-data")
    entries = read_json(base, "package/en/data.json")
    subgroups = read_json(base, "package/meta/groups.json")["subgroups"]
    common = set.intersection(*(icon_names(work, artist) for artist in ARTISTS))
    chosen = [
        e for e in entries if e.get("group") in CONCRETE_GROUPS and slug_of(e["label"]) in common
    ]
    if len(chosen) != NUM_LABELS:
        raise ValueError(f"the rule gives {len(chosen)} labels, expected {NUM_LABELS}")
    return tuple(_label(i, e, subgroups) for i, e in enumerate(chosen))


@lru_cache(maxsize=2)
def emojibase_words(work: Path) -> tuple[str, ...]:
    """Returns all words of 3 to 6 letters in emojibase's labels and tags, sorted."""
    entries = read_json(npm_file(work, "emojibase-data"), "package/en/data.json")
    texts = [text for e in entries for text in [e["label"], *e.get("tags", [])]]
    words = {word for text in texts for word in re.findall(r"[a-z]+", plain(text))}
    return tuple(sorted(word for word in words if 3 <= len(word) <= 6))
