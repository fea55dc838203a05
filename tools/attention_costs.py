"""What each kind of attention costs, from 256 to 2048 pixels: a table of milliseconds.

    python -m tools.attention_costs --sizes 256 512 1024 2048

One attention layer of FastViTHD's fourth stage (768 channels, 24 heads, stride 32) on a random map
of one picture, compiled, in float32; the kinds take turns, and the figure is the median.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from dl_techniques.evaluation.report import machine
from dl_techniques.layers.attention_kinds import KINDS
from dl_techniques.models.vision.fast_vlm.attention import Attention

CHANNELS, HEADS, STRIDE = 768, 24, 32


def make(kind: str, side: int) -> Callable[[], Any]:
    """A call of the compiled layer on a map of `side` x `side` places."""
    inputs = keras.Input((side, side, CHANNELS))
    model = keras.Model(inputs, Attention(HEADS, kind=kind)(inputs))
    data = np.random.default_rng(0).normal(size=(1, side, side, CHANNELS)).astype("float32")
    return lambda: model.predict_on_batch(data)


def medians(sides: Sequence[int], repeats: int) -> dict[tuple[str, int], float]:
    """(kind, side) -> milliseconds."""
    found: dict[tuple[str, int], float] = {}
    for side in sides:
        calls = {kind: make(kind, side) for kind in KINDS}
        times: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for turn in range(repeats + 1):
            for kind, call in calls.items():
                start = time.perf_counter()
                call()
                if turn:  # the first compiles
                    times[kind].append(time.perf_counter() - start)
        found.update({(kind, side): 1000 * float(np.median(t)) for kind, t in times.items()})
    return found


def exponent(first: float, last: float, places: float) -> float:
    """e in time ~ places ** e, between the smallest and the largest map."""
    return math.log(last / first) / math.log(places)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(argv)
    sides = [size // STRIDE for size in options.sizes]
    found = medians(sides, options.repeats)
    head = [f"{size} px" for size in options.sizes]
    print("| attention | " + " | ".join(head) + " | exponent in places |")
    print("|---|" + "---|" * (len(head) + 1))
    for kind in KINDS:
        times = [found[kind, side] for side in sides]
        grown = exponent(times[0], times[-1], (sides[-1] / sides[0]) ** 2)
        print(f"| `{kind}` | " + " | ".join(f"{t:.1f}" for t in times) + f" | {grown:.2f} |")
    facts = machine()
    print(
        f"milliseconds, median of {options.repeats}: " + ", ".join(f"{v}" for v in facts.values())
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
