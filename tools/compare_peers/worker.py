"""The process of one peer: loads its weights once, then computes when a line asks for it.

Run as `python -m tools.compare_peers.worker WORK PEER FOLDER`. It answers every line on stdin by
one line of JSON on stdout: "times SECONDS" by the seconds of one computation, the median of a turn
that long, "output FILE" by writing what it computes to FILE. Whatever else prints goes to stderr.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dl_techniques.runtime.memory import keep_freed_memory
from tools.compare_peers.job import Job
from tools.compare_peers.peers.table import PEERS, Runner
from tools.compare_peers.timing import turn


def answer(runner: Runner, request: str, **runs: int) -> dict[str, Any]:
    """Does what a line asks for; `runs`: of `timing.turn`."""
    verb, _, argument = request.partition(" ")
    if verb == "times":
        return {"times": turn(runner.times, float(argument), **runs)}
    if verb == "output":
        np.save(argument, runner.output())
        return {"written": argument}
    raise ValueError(f"unknown request {request!r}")


def hold_files() -> None:
    """Keeps files that the peer has mapped in memory while others have their turn; Linux only.

    Mapped weights are the first that a system takes away from a process that waits; reading them
    again took ten times as long as the work. Without the right to lock memory they stay where the
    system leaves them.
    """
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return
    lock = ctypes.CDLL(None).mlock
    for line in maps.read_text().splitlines():
        span, rights, _, _, file = line.split()[:5]
        if file != "0" and rights.startswith("r"):
            start, stop = (int(end, 16) for end in span.split("-"))
            lock(ctypes.c_void_p(start), ctypes.c_size_t(stop - start))


def serve(load: Callable[[], Runner], **runs: int) -> None:
    """Answers until stdin ends.

    Args:
        load: makes the runner.
        **runs: of `timing.turn`.
    """
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")

    try:
        runner = load()
        reply({"ready": True})
        for line in sys.stdin:
            reply(answer(runner, line.strip(), **runs))
    except Exception as error:
        reply({"error": f"{type(error).__name__}: {error}"})
        raise


def main(work: str, peer: str, folder: Path) -> None:
    """Serves one peer."""

    job = Job.read(folder)

    def load() -> Runner:
        keep_freed_memory()
        runner = PEERS[work][peer].load(folder)
        if job.device == "cpu":
            hold_files()
        return runner

    serve(load, **job.runs)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
