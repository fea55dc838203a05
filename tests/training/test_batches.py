"""Batches by place: repeated, and made ahead."""

from __future__ import annotations

import os
import time

import pytest

from dl_techniques.errors import TrainingError
from dl_techniques.training.batches import Repeated, drawn_ahead

pytestmark = pytest.mark.once


class Numbers:
    """Tells the place; can be pickled."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 5

    def batch(self, epoch: int, index: int) -> int:
        if epoch > 90:
            raise ValueError("no such epoch")
        self.asked.append(5 * epoch + index)
        return self.asked[-1]


@pytest.mark.parametrize(
    "options", [{}, {"threads": 3}, pytest.param({"processes": 2}, marks=pytest.mark.full)]
)
def test_workers_give_the_same_batches(options: dict[str, int]) -> None:
    before = dict(os.environ)
    with drawn_ahead(Numbers(), **options) as ahead:
        assert dict(os.environ) == before and len(ahead) == 5
        places = [(0, 0), (0, 1), (0, 2), (0, 4), (1, 0), (7, 3), (0, 1)]
        assert [ahead.batch(*place) for place in places] == [0, 1, 2, 4, 5, 38, 1]
        with pytest.raises(ValueError, match="no such epoch"):
            ahead.batch(91, 0)


def test_the_next_ones_are_made_ahead() -> None:
    numbers = Numbers()
    with drawn_ahead(numbers, threads=1, ahead=4) as ahead:
        ahead.batch(0, 0)
        until = time.monotonic() + 30
        while len(numbers.asked) < 5 and time.monotonic() < until:
            time.sleep(0.01)
    assert numbers.asked == [0, 1, 2, 3, 4]


def test_repeated_batches_are_among_the_last_and_functions_of_the_place() -> None:
    numbers = Numbers()
    twice = Repeated(numbers, passes=3, kept=4)
    given = [twice.batch(*divmod(n, 5)) for n in range(60)]
    assert given[::3] == list(range(20)) and len(numbers.asked) == 20
    assert all(new - 4 < again <= new for new, again in zip(given[::3], given[2::3], strict=True))
    resumed = Repeated(Numbers(), passes=3, kept=4)
    assert [resumed.batch(*divmod(n, 5)) for n in range(31, 60)] == given[31:]


def test_no_workers_are_refused() -> None:
    with pytest.raises(TrainingError, match="threads=0, processes=0: expected at least one"):
        drawn_ahead(Numbers(), threads=0).__enter__()
