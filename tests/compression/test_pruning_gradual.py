"""Pruning in steps."""

from __future__ import annotations

from typing import Any

import pytest

from dl_techniques.compression.channel_pruning import prune_channels
from dl_techniques.compression.pruning_gradual import prune_gradually
from dl_techniques.errors import CompressionError
from tests.helpers import numbers
from tests.models.vision.fast_vlm.small_network import make_smaller_network

pytestmark = pytest.mark.once


def test_each_step_prunes_what_the_last_one_trained() -> None:
    network = make_smaller_network(mixers=("repmixer",) * 2)
    seen: list[Any] = []

    def fine_tune(smaller: Any, step: int) -> None:
        seen.append((step, smaller.config.embed_dims, smaller))
        smaller.head[-1].bias.assign([float(step)] * 5)

    last = prune_gradually(network, 0.5, fine_tune, steps=2, targets=("width",), divisor=1)
    assert [entry[:2] for entry in seen] == [(1, (5, 10)), (2, (4, 8))]
    assert last is seen[-1][2] and numbers(last.head[-1].bias).tolist() == [2.0] * 5
    assert network.config.embed_dims == (8, 16)


def test_one_step_is_plain_pruning() -> None:
    network = make_smaller_network()
    once = prune_gradually(network, 0.5, lambda smaller, step: None, steps=1)
    plain = prune_channels(network, 0.5)
    assert once.config == plain.config
    for left, right in zip(once.weights, plain.weights, strict=True):
        assert (numbers(left) == numbers(right)).all()


def test_steps_that_drop_nothing_are_left_out() -> None:
    steps: list[int] = []
    prune_gradually(
        make_smaller_network(), 0.5, lambda smaller, step: steps.append(step), steps=6, divisor=8,
        targets=("hidden",),
    )  # fmt: skip
    assert len(steps) == 2 and steps == sorted(steps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"fraction": 1.0}, "fraction is 1.0"),
        ({"fraction": 0.01, "divisor": 8}, "drops no channel.*raise it or lower divisor"),
    ],
)
def test_requests_that_cannot_be(arguments: dict[str, Any], message: str) -> None:
    request = {"fraction": 0.5, "fine_tune": lambda smaller, step: None, **arguments}
    with pytest.raises(CompressionError, match=message):
        prune_gradually(make_smaller_network(), **request)
