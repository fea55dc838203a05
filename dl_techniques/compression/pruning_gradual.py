"""Pruning channels in steps, with training between them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from dl_techniques.compression.channel_importance import channel_importance
from dl_techniques.compression.channel_pruning import (
    TARGETS,
    ChannelCounts,
    check_request,
    keep_channels,
)
from dl_techniques.compression.pruning_schedule import CubicSchedule
from dl_techniques.errors import CompressionError
from dl_techniques.models.vision.fast_vlm.model import FastVLM

FineTune = Callable[[FastVLM, int], Any]


def prune_gradually(
    model: FastVLM,
    fraction: float,
    fine_tune: FineTune,
    *,
    steps: int = 3,
    targets: Collection[str] = TARGETS,
    importance: str = "l1",
    data: Any = None,
    loss: Any = None,
    divisor: int = 4,
) -> FastVLM:
    """Prunes a little, fine-tunes, and so on, until `fraction` of the channels is gone.

    After step t of n the fraction is `CubicSchedule(fraction, 0, n)(t)`: most goes first.

    Args:
        model: trained, branched; stays as it is.
        fraction: part of the channels to drop in all, in (0, 1).
        fine_tune: called as `fine_tune(smaller, step)` after each pruning; it compiles and fits.
        steps: how often. Steps that would drop no channel are left out. Defaults to 3.
        targets: of `prune_channels`.
        importance: of `prune_channels`; looked at anew in each step.
        data: of `prune_channels`.
        loss: of `prune_channels`.
        divisor: of `prune_channels`.

    Returns:
        The network after the last fine-tuning.

    Raises:
        CompressionError: numbers that cannot be, or nothing to drop.

    Example:
        >>> sizes = []
        >>> note = lambda network, step: sizes.append(network.config.embed_dims)
        >>> small = prune_gradually(FastVLM.from_variant("tiny"), 0.5, note, steps=2)
        >>> sizes[-1]
        (16, 32, 64)
    """
    check_request(fraction, targets, divisor)
    if steps < 1:
        raise CompressionError(f"steps is {steps}; expected 1 or more")
    schedule, whole, done = CubicSchedule(fraction, 0, steps), ChannelCounts.of(model), 0
    for step in range(1, steps + 1):
        wanted = whole.cut(schedule(step), targets, divisor)
        if wanted != ChannelCounts.of(model):
            model = keep_channels(model, wanted, channel_importance(model, importance, data, loss))
            fine_tune(model, step)
            done += 1
    if not done:
        raise CompressionError(
            f"{model.name}: a fraction of {fraction:g} drops no channel of {list(whole.widths)} "
            f"(hidden {list(whole.hidden)}); raise it or lower divisor"
        )
    return model
