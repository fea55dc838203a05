"""How long an encoder takes for a picture, in each of its forms, and how that grows with its size.

Random weights are as fast as trained ones, so a network is built anew for every size and form. The
forms of one size take turns, so that what else the machine does falls on all of them.

Example:
    >>> from dl_techniques.evaluation.speed_encoder import growth_exponent
    >>> round(growth_exponent([256 * 256, 512 * 512], [1.0, 4.0]), 6)
    1.0
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dl_techniques.errors import DLTechniquesError
from dl_techniques.evaluation.speed import median
from dl_techniques.models.picture_network import encoder_network

if TYPE_CHECKING:
    import keras

FORMS: dict[str, bool | str] = {"branched": False, "fused": True, "folded": "folded"}
"""Name of a form -> what `FastVLM(reparameterized=...)` calls it: the training form, the published
networks' inference form, and the deeper, equally exact one."""

Make = Callable[[str, int], Any]


@dataclass(frozen=True)
class EncoderTime:
    """One cell of the table.

    Attributes:
        form: one of `FORMS`.
        resolution: side of the square pictures, pixels.
        batch_size: pictures at once.
        seconds: median for the whole batch.
        fastest: the shortest.
    """

    form: str
    resolution: int
    batch_size: int
    seconds: float
    fastest: float


def forms_of(network: keras.Model) -> Make:
    """Networks with the numbers of a given one, at any size and in any form.

    Args:
        network: `FastVLM`, e.g. the encoder of a vision-language model.

    Returns:
        (form, resolution) -> a new network with random weights.

    Raises:
        DLTechniquesError: the network has no forms.
    """
    if not encoder_network(network).forms:
        raise DLTechniquesError(
            f"{network.name} is a {type(network).__name__}, which has no branched, fused and "
            "folded forms to compare; expected a FastVLM"
        )
    config = network.get_config()

    def make(form: str, resolution: int) -> Any:
        shape = (resolution, resolution, 3)
        changes = {"input_shape": shape, "reparameterized": FORMS[form]}
        return type(network).from_config({**config, **changes})

    return make


def encoder_times(
    make: Make,
    resolutions: Sequence[int],
    batch_sizes: Sequence[int],
    repeats: int,
    forms: Sequence[str] = tuple(FORMS),
    on_run: Callable[[int], None] | None = None,
) -> list[EncoderTime]:
    """Times a network by `predict_on_batch`, which compiles it where the backend compiles.

    Args:
        make: (form, resolution) -> network.
        resolutions: sides of the pictures, pixels.
        batch_sizes: numbers of pictures at once.
        repeats: timed runs of each cell, after one that compiles.
        forms: some of `FORMS`.
        on_run: called with 1 after each run, `runs_of(...)` times in all.

    Returns:
        One entry for every resolution, batch size and form, in this order.

    Raises:
        ValueError: `repeats` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"expected at least one repeat, got {repeats}")
    found = []
    for resolution in resolutions:
        networks = {form: make(form, resolution) for form in forms}
        for batch in batch_sizes:
            times = take_turns(networks, _pictures(batch, resolution), repeats, on_run)
            found += [
                EncoderTime(form, resolution, batch, median(values), min(values))
                for form, values in times.items()
            ]
        networks.clear()
        gc.collect()  # compiled functions and their networks hold each other
    return found


def runs_of(resolutions: Sequence[int], batch_sizes: Sequence[int], repeats: int) -> int:
    """Number of runs that `encoder_times` makes of all forms."""
    return len(resolutions) * len(batch_sizes) * len(FORMS) * (repeats + 1)


def take_turns(
    networks: dict[str, Any], pictures: Any, repeats: int, on_run: Callable[[int], None] | None
) -> dict[str, list[float]]:
    """Runs some networks one after the other, again and again; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(repeats + 1):
        for name, network in networks.items():
            start = time.perf_counter()
            network.predict_on_batch(pictures)
            if turn:
                times[name].append(time.perf_counter() - start)
            if on_run is not None:
                on_run(1)
    return times


def _pictures(batch: int, resolution: int) -> Any:
    """float32[B, S, S, 3] in [0, 1)."""
    shape = (batch, resolution, resolution, 3)
    return np.random.default_rng(0).random(shape, dtype="float32")


def growth_exponent(pixels: Sequence[float], seconds: Sequence[float]) -> float:
    """The e of `seconds ~ pixels ** e`: slope of the least-squares line through the logarithms.

    Args:
        pixels: pixels of a picture, at least two different numbers.
        seconds: its time.

    Raises:
        ValueError: fewer than two different numbers of pixels.

    Example:
        >>> round(growth_exponent([1, 10, 100], [3.0, 30.0, 300.0]), 6)
        1.0
    """
    if len(set(pixels)) < 2:
        raise ValueError(f"a growth needs two different sizes, got {sorted(set(pixels))}")
    x, y = [math.log(p) for p in pixels], [math.log(s) for s in seconds]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return products / sum((a - middle_x) ** 2 for a in x)


def growth(times: Sequence[EncoderTime]) -> dict[tuple[str, int], float]:
    """(form, batch size) -> exponent of its time in pixels; nothing for a single resolution."""
    lines: dict[tuple[str, int], list[EncoderTime]] = {}
    for cell in times:
        lines.setdefault((cell.form, cell.batch_size), []).append(cell)
    return {
        key: growth_exponent([c.resolution**2 for c in line], [c.seconds for c in line])
        for key, line in lines.items()
        if len({c.resolution for c in line}) > 1
    }
