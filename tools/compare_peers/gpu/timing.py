"""One turn of a peer: some runs that do not count, then the median of those that do."""

from __future__ import annotations

import time
from collections.abc import Callable

from tools.compare_peers import timing
from tools.compare_peers.gpu.settings import Settings


def turn(once: Callable[[], dict[str, float]], settings: Settings) -> dict[str, float]:
    """Medians of the runs of one turn, by name of the time.

    Args:
        once: computes once and waits for the result; seconds by name.
        settings: how long.
    """
    return timing.turn(once, settings.turn_seconds, settings.least, settings.uncounted)


def seconds_of(compute: Callable[[], object], wait: Callable[[], object]) -> float:
    """Seconds from an idle device to an idle device."""
    wait()
    start = time.perf_counter()
    compute()
    wait()
    return time.perf_counter() - start
