"""All peers of all shapes: loaded side by side, checked, then timed in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dl_techniques.evaluation.speed import median
from tools.compare_peers.gpu.settings import REFERENCE
from tools.compare_peers.job import Job
from tools.compare_peers.measure import relative_difference
from tools.compare_peers.peers import LIMITS, Peer
from tools.compare_peers.workers import PeerError

Start = Callable[[Peer, Path], Any]


@dataclass
class Row:
    """What became of one peer at one shape.

    Attributes:
        peer: which.
        difference: largest difference from float32 over the largest value there.
        rms: the same of the root mean squares.
        seconds: medians of its turns, by name of the time.
        loading: seconds until it was ready, everything compiled.
        device: what it says it computes on.
        reason: why there are no times, in words.
    """

    peer: Peer
    difference: float | None = None
    rms: float | None = None
    seconds: dict[str, list[float]] = field(default_factory=dict)
    loading: float | None = None
    device: str | None = None
    reason: str | None = None
    worker: Any = field(default=None, repr=False)

    def drop(self, reason: str) -> None:
        """Ends the peer for a reason."""
        self.reason = reason
        self.seconds = {}
        self.close()

    def close(self) -> None:
        """Ends the process."""
        if self.worker is not None:
            self.worker.close()
            self.worker = None

    def median(self, name: str) -> float | None:
        """The median of its turns; None where there is none."""
        return median(self.seconds[name]) if self.seconds.get(name) else None


@dataclass
class Shape:
    """One table: a job, its folder, and a row for each peer, the baseline first."""

    job: Job
    folder: Path
    rows: list[Row]

    @property
    def title(self) -> str:
        """In words."""
        if self.job.work == "vlm":
            return f"{self.job.network}, {self.job.image_size} px, {self.job.text_tokens} tokens"
        return f"{self.job.network}, {self.job.image_size} px, batch {self.job.batch_size}"


class Listener:
    """Is told what happens."""

    def ready(self, shape: Shape, row: Row) -> None:
        """A peer is loaded, or has failed to."""

    def failed(self, shape: Shape, row: Row) -> None:
        """A peer has failed later."""

    def turned(self, shape: Shape, row: Row, times: dict[str, float]) -> None:
        """A peer had its turn."""

    def rounded(self, shape: Shape) -> None:
        """All peers of a shape had a turn."""

    def finished(self, shape: Shape) -> None:
        """A shape is done."""


def measure(
    shapes: Sequence[Shape], rounds: int, at_once: int, start: Start, listener: Listener
) -> None:
    """Fills the rows.

    Args:
        shapes: measured one after another.
        rounds: turns of every peer that count; one more comes before.
        at_once: processes that load and compile at the same time.
        start: makes the process of a peer in a folder.
        listener: is told what happens.
    """
    try:
        _load_all(shapes, at_once, start, listener)
        for shape in shapes:
            _check(shape, listener)
            _take_turns(shape, rounds, listener)
            listener.finished(shape)
            _close([shape])
    finally:
        _close(shapes)


def _close(shapes: Sequence[Shape]) -> None:
    """Ends all processes at once: each takes a while to give a card back."""
    rows = [row for shape in shapes for row in shape.rows]
    with ThreadPoolExecutor(len(rows)) as pool:
        list(pool.map(Row.close, rows))


def _load_all(shapes: Sequence[Shape], at_once: int, start: Start, listener: Listener) -> None:
    """The last shapes first: whole models take longest."""

    def load(shape: Shape, row: Row) -> None:
        _load(shape, row, start)
        listener.ready(shape, row)

    with ThreadPoolExecutor(at_once) as pool:
        pairs = [(shape, row) for shape in reversed(shapes) for row in shape.rows]
        tasks = [pool.submit(load, *pair) for pair in pairs]
    for task in tasks:
        task.result()


def _load(shape: Shape, row: Row, start: Start) -> None:
    if missing := row.peer.missing():
        row.reason = f"not installed: {', '.join(missing)}"
        return
    begin = time.perf_counter()
    try:
        row.worker = start(row.peer, shape.folder)
        row.loading = time.perf_counter() - begin
        row.device = row.worker.device()
    except PeerError as error:
        row.drop(f"failed: {error}")


def _check(shape: Shape, listener: Listener) -> None:
    """Compares what every peer computes with the baseline's float32."""
    file = shape.folder / REFERENCE
    reference = np.load(file) if file.exists() else None
    for row in shape.rows:
        if row.worker is None:
            continue
        if reference is None:
            row.drop(f"not checked: {shape.rows[0].peer.name} left no reference")
        else:
            _judge(row, reference)
        if row.reason is not None:
            listener.failed(shape, row)


def _judge(row: Row, reference: np.ndarray) -> None:
    try:
        values = row.worker.output()
    except PeerError as error:
        row.drop(f"failed: {error}")
        return
    if values.shape != reference.shape:
        row.drop(f"wrong: shape {values.shape}, the reference has {reference.shape}")
        return
    row.difference = relative_difference(reference, values)
    row.rms = rms_difference(reference, values)
    limit = LIMITS[row.peer.precision]
    if not row.difference <= limit:  # what is no number is wrong as well
        row.drop(f"wrong: differs by {row.difference:.2g}, the limit is {limit:g}")


def rms_difference(reference: np.ndarray, values: np.ndarray) -> float:
    """Root mean square of the difference over the reference's."""
    left, right = reference.astype("float64"), values.astype("float64")
    return float(np.sqrt(np.mean((left - right) ** 2) / np.mean(left**2)))


def _take_turns(shape: Shape, rounds: int, listener: Listener) -> None:
    for number in range(rounds + 1):
        for row in shape.rows:
            if row.worker is not None:
                _take_turn(shape, row, number > 0, listener)
        listener.rounded(shape)


def _take_turn(shape: Shape, row: Row, counts: bool, listener: Listener) -> None:
    try:
        times = row.worker.times()
    except PeerError as error:
        row.drop(f"failed: {error}")
        listener.failed(shape, row)
        return
    listener.turned(shape, row, times)
    for name, value in times.items() if counts else ():
        row.seconds.setdefault(name, []).append(value)
