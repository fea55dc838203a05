"""The clock of "first token": imported first, it starts as early as this process can tell."""

from __future__ import annotations

import time

STARTED = time.perf_counter()


def since_start() -> float:
    """Seconds since this module was imported."""
    return time.perf_counter() - STARTED
