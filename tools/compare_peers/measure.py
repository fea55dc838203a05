"""Peers in turns: first what they compute, then how long they take, A B C A B C."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dl_techniques.evaluation.speed import median
from tools.compare_peers.peers.table import LIMITS, Peer
from tools.compare_peers.timing import TURN_SECONDS
from tools.compare_peers.workers import PeerError, Worker

Start = Callable[[Peer, Path], Any]
Say = Callable[[str], None]


class BaselineError(Exception):
    """The first peer, which all others are held against, gave nothing to hold them against."""


@dataclass
class Result:
    """What became of one peer.

    Attributes:
        peer: which.
        difference: largest difference from the reference over its largest value.
        seconds: all timed runs, by name of the time.
        ratio: median over that of one peer in the same turns, by name of the time.
        megabytes: peak memory of its process.
        reason: why there are no times, in words.
    """

    peer: Peer
    difference: float | None = None
    seconds: dict[str, list[float]] = field(default_factory=dict)
    ratio: dict[str, float] = field(default_factory=dict)
    megabytes: float | None = None
    reason: str | None = None


def compare(
    peers: Sequence[Peer],
    folder: Path,
    repeats: int,
    at_once: int = 6,
    pause: float = 0.2,
    turn_seconds: float = TURN_SECONDS,
    loading: int = 1,
    against: str | None = None,
    start: Start = Worker,
    say: Say = lambda line: None,
) -> list[Result]:
    """Times all peers, and compares what they compute with the first.

    Args:
        peers: the baseline first.
        folder: of the comparison.
        repeats: timed rounds; one more comes before and does not count.
        at_once: processes that are held in memory at once; the baseline is one of every group.
        pause: seconds between two turns, in which threads of the last one go to sleep.
        turn_seconds: a peer computes again until they are over; its time is the median.
        loading: processes that load and compile at the same time.
        against: the peer of whose time the others' are ratios; the baseline unless said.
        start: makes the process of a peer.
        say: told what happens.

    Returns:
        One result a peer, in their order.

    Raises:
        BaselineError: the first peer is not installed, or failed.
    """
    results = {peer.name: Result(peer) for peer in peers}
    against = against or peers[0].name
    always = [peer for peer in peers if peer in (peers[0], results[against].peer)]
    others = [peer for peer in peers if peer not in always]
    for group in groups(others, at_once - len(always)):
        members = [results[peer.name] for peer in (*always, *group)]
        with _loaded(members, folder, loading, start, say) as workers:
            _check_outputs(members, workers, say)
            fresh = _take_turns(members, workers, repeats, (pause, turn_seconds), say)
        _enter(members, fresh, against)
    return list(results.values())


def groups(peers: Sequence[Peer], size: int) -> Iterator[Sequence[Peer]]:
    """Slices of at most `size`; a single empty one where there is no peer."""
    size = max(1, size)
    for begin in range(0, max(1, len(peers)), size):
        yield peers[begin : begin + size]


@contextlib.contextmanager
def _loaded(
    members: Sequence[Result], folder: Path, loading: int, start: Start, say: Say
) -> Iterator[dict[str, Any]]:
    """Name -> process, of those that could be loaded; all are ended, their memory is entered."""

    def load(result: Result) -> Any:
        say(f"loading {result.peer.name}")
        return _started(result, folder, start)

    workers: dict[str, Any] = {}
    try:
        with ThreadPoolExecutor(loading) as pool:
            for result, worker in zip(members, pool.map(load, members), strict=True):
                if worker is not None:
                    workers[result.peer.name] = worker
        yield workers
    finally:
        for result in members:
            if result.peer.name in workers:
                result.megabytes = workers[result.peer.name].close()


def _started(result: Result, folder: Path, start: Start) -> Any:
    missing = result.peer.missing()
    if missing:
        result.reason = f"not installed: {', '.join(missing)}"
        return None
    try:
        return start(result.peer, folder)
    except PeerError as error:
        result.reason = f"failed: {error}"
        return None


def _check_outputs(members: list[Result], workers: dict[str, Any], say: Say) -> None:
    """Compares every peer with the first, and closes those that compute something else."""
    baseline = members[0]
    if baseline.peer.name not in workers:
        raise BaselineError(f"the baseline {baseline.peer.name} cannot be run: {baseline.reason}")
    try:
        reference = workers[baseline.peer.name].output()
    except PeerError as error:
        raise BaselineError(f"the baseline {baseline.peer.name} failed: {error}") from error
    if not np.isfinite(reference).all():
        raise BaselineError(f"the baseline {baseline.peer.name} gives numbers that are not finite")
    baseline.difference = 0.0
    for result in members[1:]:
        name = result.peer.name
        if name not in workers:
            continue
        try:
            values = workers[name].output()
        except PeerError as error:
            _drop(result, workers, f"failed: {error}")
            continue
        _judge(result, reference, values)
        say(f"{name}: differs by {result.difference}")
        if result.reason is not None:
            _drop(result, workers, result.reason)


def _judge(result: Result, reference: np.ndarray, values: np.ndarray) -> None:
    if values.shape != reference.shape:
        result.reason = f"wrong: shape {values.shape}, the reference has {reference.shape}"
        return
    result.difference = relative_difference(reference, values)
    limit = LIMITS[result.peer.precision]
    if not result.difference <= limit:  # what is no number is wrong as well
        result.reason = f"wrong: differs by {result.difference:.2g}, the limit is {limit:g}"


def relative_difference(reference: np.ndarray, values: np.ndarray) -> float:
    """Largest difference over the reference's largest value."""
    left, right = reference.astype("float64"), values.astype("float64")
    return float(np.max(np.abs(left - right)) / np.max(np.abs(left)))


def _drop(result: Result, workers: dict[str, Any], reason: str) -> None:
    result.reason = reason
    workers.pop(result.peer.name).close()


def _take_turns(
    members: list[Result],
    workers: dict[str, Any],
    repeats: int,
    pace: tuple[float, float],
    say: Say,
) -> dict[str, list[dict[str, float]]]:
    """Name -> its turns, the first round left out; `pace`: pause and length of a turn, seconds."""
    pause, turn_seconds = pace
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    by_name = {result.peer.name: result for result in members}
    for turn in range(repeats + 1):
        say(f"round {turn} of {repeats}")
        for name in list(workers):
            time.sleep(pause)
            try:
                times = workers[name].times(turn_seconds)
            except PeerError as error:
                _drop(by_name[name], workers, f"failed: {error}")
                del runs[name]
                continue
            say(
                f"{name}: "
                + ", ".join(f"{key} {1000 * value:.1f} ms" for key, value in times.items())
            )
            if turn:
                runs[name].append(times)
    return runs


def _enter(members: list[Result], runs: dict[str, list[dict[str, float]]], against: str) -> None:
    """Adds the runs of a group to its results; ratios are to one peer in the same turns."""
    baseline = members[0]
    if baseline.peer.name not in runs:
        raise BaselineError(f"the baseline {baseline.peer.name} {baseline.reason}")
    base = _medians(runs.get(against, []))
    for result in members:
        for name, value in _medians(runs.get(result.peer.name, [])).items():
            own = [run[name] for run in runs[result.peer.name]]
            result.seconds.setdefault(name, []).extend(own)
            if name in base:
                result.ratio[name] = value / base[name]


def _medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Name of a time -> its median; nothing where there are no runs."""
    return {name: median([run[name] for run in runs]) for name in (runs[0] if runs else ())}
