"""The rows of a batch as places: who sits where, and what the place still knows of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dl_techniques.serving.replies import Reply

WORTH_A_COPY = 32  # tokens: reading fewer costs less than copying a row


@dataclass
class Place:
    """A row of the batch.

    Attributes:
        index: which.
        held: int64[n]. The contents whose keys and values the row has.
        reply: whose answer is written in it; None for nobody's.
        features: of the pictures of its question, by digest.
        used: when it was taken last; counts up.
    """

    index: int
    held: np.ndarray = field(default_factory=lambda: np.zeros(0, "int64"))
    reply: Reply | None = None
    features: dict[bytes, np.ndarray] = field(default_factory=dict)
    used: int = 0

    @property
    def asked(self) -> Reply:
        """The reply of a row that has one."""
        assert self.reply is not None
        return self.reply

    @property
    def unread(self) -> int:
        """How much of the prompt is to be read."""
        return len(self.asked.question.token_ids) - len(self.held)


def common(held: np.ndarray, contents: np.ndarray) -> int:
    """Length of the common beginning.

    Example:
        >>> common(np.array([1, 2, 3]), np.array([1, 2, 4, 5]))
        2
    """
    length = min(len(held), len(contents))
    different = np.flatnonzero(held[:length] != contents[:length])
    return int(different[0]) if len(different) else length


def seat(places: Sequence[Place], contents: np.ndarray) -> tuple[Place, Place | None]:
    """The free place for a prompt, and the one whose beginning is worth a copy, if any is.

    Args:
        places: all of them; one at least is free.
        contents: int64[n] of the prompt.
    """
    shared = {place.index: common(place.held, contents) for place in places}
    free = [place for place in places if place.reply is None]
    best = max(free, key=lambda place: (shared[place.index], -place.used))
    if shared[best.index] < WORTH_A_COPY:  # little is lost by taking the one that rested longest
        best = min(free, key=lambda place: place.used)
    source = max(places, key=lambda place: shared[place.index])
    worth = shared[source.index] >= shared[best.index] + WORTH_A_COPY
    return best, source if worth else None
