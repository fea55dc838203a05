"""Small pieces of English: articles, plurals, lists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six")
_IRREGULAR = {"mouse": "mice", "fish": "fish", "scissors": "scissors"}


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """Returns one of the options."""
    return options[int(rng.integers(len(options)))]


def article(noun: str) -> str:
    """Returns the noun with "a" or "an", by its sound.

    Example:
        >>> article("umbrella"), article("euro banknote"), article("hourglass")
        ('an umbrella', 'a euro banknote', 'an hourglass')
    """
    if noun.startswith(("ewe", "eu", "one", "uni")):
        return f"a {noun}"
    return f"an {noun}" if noun[0] in "aeiou" or noun.startswith("hour") else f"a {noun}"


def plural(noun: str) -> str:
    """Returns the plural of a noun or of "red circle".

    Example:
        >>> plural("red butterfly"), plural("bus")
        ('red butterflies', 'buses')
    """
    head, _, last = noun.rpartition(" ")
    if last in _IRREGULAR:
        last = _IRREGULAR[last]
    elif last.endswith("y") and last[-2] not in "aeiou":
        last = last[:-1] + "ies"
    elif last.endswith(("s", "x", "ch", "sh")):
        last += "es"
    else:
        last += "s"
    return f"{head} {last}".strip()


def counted(noun: str, count: int) -> str:
    """Returns "a dog" or "two dogs"."""
    return article(noun) if count == 1 else f"{NUMBER_WORDS[count]} {plural(noun)}"


def listing(parts: Sequence[str]) -> str:
    """Returns "a, b and c"."""
    if len(parts) == 1:
        return parts[0]
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def sentence(text: str) -> str:
    """Returns text with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."
