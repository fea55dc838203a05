"""The cubic rise of sparsity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dl_techniques.compression.pruning_schedule import CubicSchedule
from dl_techniques.errors import CompressionError

pytestmark = pytest.mark.once


def test_it_rises_from_initial_to_final_and_slows_down() -> None:
    schedule = CubicSchedule(0.9, begin_step=10, end_step=110, initial=0.1)
    values = np.array([schedule(step) for step in range(130)])
    np.testing.assert_allclose(values[:11], 0.1)
    np.testing.assert_allclose(values[110:], 0.9)
    rises = np.diff(values[10:111])
    assert np.all(rises > 0) and np.all(np.diff(rises) < 0)


def test_half_way_an_eighth_is_left() -> None:
    assert CubicSchedule(0.8, 0, 100)(50) == pytest.approx(0.8 * (1 - 1 / 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"final": 1.0}, "from 0.0 to 1.0; expected 0 <= initial <= final"),
        ({"final": 0.0}, "to 0.0"),
        ({"final": 0.5, "initial": 0.6}, "from 0.6 to 0.5"),
        ({"final": 0.5, "initial": -0.1}, "from -0.1"),
        ({"final": 0.5, "begin_step": 5, "end_step": 5}, "from step 5 to 5; expected"),
        ({"final": 0.5, "begin_step": -1}, "from step -1"),
    ],
)
def test_schedules_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        CubicSchedule(**arguments)
