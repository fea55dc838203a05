"""One turn of a peer: runs until its seconds are over."""

from __future__ import annotations

import time
from collections.abc import Callable

from dl_techniques.evaluation.speed import median

TURN_SECONDS = 0.3
"""Long enough for a dozen runs of a small network. The first of them wakes threads, which some
systems start on one core, and finds the last peer's data in the caches: it would time that."""


def turn(
    once: Callable[[], dict[str, float]], seconds: float, least: int = 1, uncounted: int = 0
) -> dict[str, float]:
    """Medians of the runs of one turn, by name of the time.

    Args:
        once: computes once and waits for the result; seconds by name.
        seconds: another run begins until they are over.
        least: runs that count, at least.
        uncounted: runs before them.
    """
    for _ in range(uncounted):
        once()
    runs: list[dict[str, float]] = []
    end = time.perf_counter() + seconds
    while len(runs) < least or time.perf_counter() < end:
        runs.append(once())
    return {name: median([run[name] for run in runs]) for name in runs[0]}


def seconds_of(compute: Callable[[], object], wait: Callable[[], object]) -> float:
    """Seconds from an idle device to an idle device.

    Args:
        compute: starts the work, and may return before it is done.
        wait: returns when nothing is left to do.
    """
    wait()
    start = time.perf_counter()
    compute()
    wait()
    return time.perf_counter() - start
