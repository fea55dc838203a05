"""What is trained and what is only measured are different wordings."""

from __future__ import annotations

import numpy as np
import pytest

from recipes.demo.photos.wordings import (
    CLOTHES,
    HELD_CLOTHES,
    HELD_NAME,
    HELD_OUT,
    NAME,
    TRAINED,
    bare,
    spoken,
)

pytestmark = pytest.mark.once


def test_there_are_enough_and_none_twice() -> None:
    assert len(NAME) >= 25 and len(CLOTHES) >= 15
    assert len(HELD_NAME) == len(HELD_CLOTHES) == 5
    for wordings in (NAME, CLOTHES, HELD_OUT):
        assert len({bare(wording) for wording in wordings}) == len(wordings)


def test_none_is_in_both() -> None:
    assert not {bare(wording) for wording in HELD_OUT} & {bare(wording) for wording in TRAINED}


def test_a_question_is_spoken_in_many_ways() -> None:
    rng = np.random.default_rng(0)
    ways = {spoken(rng, "what is this?") for _ in range(400)}
    assert ways >= {"what is this?", "What is this?", "what is this", "What is this"}
    assert "WHAT IS THIS?" in ways
    assert {bare(way) for way in ways} == {"what is this"}
