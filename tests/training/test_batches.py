"""Batches by place: repeated, and made ahead."""

from __future__ import annotations

import os
import time
from collections import Counter

import numpy as np
import pytest

from dl_techniques.errors import TrainingError
from dl_techniques.training import Stage
from dl_techniques.training.batches import Repeated, drawn_ahead
from tests.training.test_stage import Noise, network

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


def test_a_stage_draws_each_batch_once_however_often_it_is_given() -> None:
    class Counted(Noise):
        asked: list[tuple[int, int]] = []

        def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
            self.asked.append((epoch, index))
            return super().batch(epoch, index)

    model = network()
    model.compile("sgd", "mse")
    with pytest.raises(TrainingError, match="5 steps, 0 passes: expected 1 or more"):
        Stage(model, Counted(), steps=9, passes=0)
    assert Stage(model, Counted(), steps=9, passes=3).run().steps == 9
    # three are new; Keras looks at the first two for their shapes, and some are made ahead
    count = Counter(Counted.asked)
    assert count[0, 2] == 1 and max(count[place] for place in count if place[1] > 1) == 1
    assert len(count) <= 5


def test_no_workers_are_refused() -> None:
    with pytest.raises(TrainingError, match="threads=0, processes=0: expected at least one"):
        drawn_ahead(Numbers(), threads=0).__enter__()
