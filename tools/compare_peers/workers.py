"""The other end of a peer's process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tools.compare_peers.job import Job
from tools.compare_peers.peers import Peer

SAID = 300  # characters of an error that are kept


class PeerError(Exception):
    """A peer could not be loaded, or failed while it computed."""


class Worker:
    """A process that holds one peer.

    Args:
        peer: which.
        folder: of the comparison.

    Raises:
        PeerError: it could not be loaded.
    """

    module = "tools.compare_peers.worker"

    def __init__(self, peer: Peer, folder: Path) -> None:
        self.peer, self.folder = peer, folder
        job = Job.read(folder)
        self.log = folder / f"{peer.name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, job.work, peer.name, folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
                env=self._environment(job),
            )
        self._reply()

    def _environment(self, job: Job) -> dict[str, str]:
        return environment(self.peer, job, os.environ)

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            status = self.process.wait()
            words = " ".join(self.log.read_text(errors="replace").split())[-SAID:]
            raise PeerError(f"the process ended with {status}: {words}")
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            raise PeerError(" ".join(message["error"].split())[:SAID])
        return message

    def ask(self, request: str) -> dict[str, Any]:
        """One line there, one back.

        Raises:
            PeerError: the peer failed.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(request + "\n")
        except BrokenPipeError as error:
            raise PeerError("its process has ended") from error
        return self._reply()

    def times(self, turn_seconds: float = 0.0) -> dict[str, float]:
        """Lets the peer compute so long, at least once: medians of its seconds, by name."""
        seconds: dict[str, float] = self.ask(f"times {turn_seconds}")["times"]
        return seconds

    def output(self) -> np.ndarray:
        """What the peer computes."""
        file = self.folder / f"{self.peer.name}.npy"
        self.ask(f"output {file}")
        values: np.ndarray = np.load(file)
        file.unlink()
        return values

    def close(self) -> float:
        """Ends the process; its peak memory in 10^6 bytes, of Linux."""
        peak = peak_megabytes(self.process.pid)
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # of a process that has ended
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()
        return peak


def peak_megabytes(pid: int) -> float:
    """Peak resident memory of a running process; 0 where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0.0
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0  # a process that has ended has no memory


def environment(peer: Peer, job: Job, given: Mapping[str, str]) -> dict[str, str]:
    """The variables of a peer's process."""
    values = {**given, "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"}
    if job.threads:
        for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "MKL_NUM_THREADS"):
            values[name] = str(job.threads)
    if peer.backend is not None:
        values["KERAS_BACKEND"] = peer.backend
    return values
