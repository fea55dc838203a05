"""Who gets which row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dl_techniques.serving.places import WORTH_A_COPY, Place, seat

pytestmark = pytest.mark.once

PROMPT = np.arange(100)
BUSY: Any = object()


def place(index: int, length: int, used: int, busy: bool = False) -> Place:
    held = np.concatenate([PROMPT[:length], [-5]])
    return Place(index, held, BUSY if busy else None, used=used)


def test_the_longest_beginning_wins() -> None:
    places = [place(0, 40, 9), place(1, 60, 3), place(2, 0, 1)]
    assert seat(places, PROMPT) == (places[1], None)


def test_of_short_beginnings_the_oldest_row_goes() -> None:
    places = [place(0, WORTH_A_COPY - 1, 9), place(1, 0, 3), place(2, 0, 5)]
    assert seat(places, PROMPT) == (places[1], None)


def test_a_long_beginning_of_a_busy_row_is_copied() -> None:
    places = [place(0, 80, 9, busy=True), place(1, 0, 3), place(2, 0, 5)]
    assert seat(places, PROMPT) == (places[1], places[0])
    places[2] = place(2, 60, 5)
    assert seat(places, PROMPT) == (places[2], None)
