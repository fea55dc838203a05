"""Noise and made-up things: repeatable, varied, and others for measuring than for training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from recipes.demo.photos.unknown import DRAWINGS, NOISES, made_up, noise

pytestmark = pytest.mark.once


@pytest.mark.parametrize("draw", [noise, made_up])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_pictures(draw: Callable[..., np.ndarray], split: str) -> None:
    pictures = [draw(np.random.default_rng(number), split, 50) for number in range(20)]
    assert all(p.shape == (50, 50, 3) and p.dtype == np.uint8 for p in pictures)
    assert all(p.std() > 3 for p in pictures)
    np.testing.assert_array_equal(pictures[3], draw(np.random.default_rng(3), split, 50))
    assert len({p.tobytes() for p in pictures}) == 20


@pytest.mark.parametrize("ways", [NOISES, DRAWINGS])
def test_what_is_measured_is_drawn_in_other_ways(ways: dict[str, tuple[object, ...]]) -> None:
    assert not set(ways["train"]) & set(ways["validation"])
