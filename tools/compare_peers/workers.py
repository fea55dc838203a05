"""The other end of a peer's process."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tools.compare_peers.job import Job
from tools.compare_peers.peers.table import Peer

MODULE = "tools.compare_peers.worker"
SAID = 300  # characters of an error that are kept


DEVICE = {
    "cpu": {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "KERAS_TORCH_DEVICE": "cpu"},
    "cuda": {
        "KERAS_TORCH_DEVICE": "cuda",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TORCHINDUCTOR_COMPILE_THREADS": "4",
        "TOKENIZERS_PARALLELISM": "false",
    },
}
"""Variables of a device; several processes share one card and the cores beside it."""


class PeerError(Exception):
    """A peer could not be loaded, or failed while it computed."""


class Worker:
    """A process that holds one peer.

    Args:
        peer: which.
        folder: of the comparison.
        limit: seconds in which it has to be loaded, and in which each answer has to come; None for
            as long as it takes.

    Raises:
        PeerError: it could not be loaded, or not in time.
    """

    def __init__(self, peer: Peer, folder: Path, limit: float | None = None) -> None:
        self.peer, self.folder, self.limit, self.late = peer, folder, limit, False
        job = Job.read(folder)
        self.log = folder / f"{peer.name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", MODULE, job.work, peer.name, folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
                env=environment(peer, job, os.environ),
            )
        self._reply()

    def _line(self) -> str:
        """What the process says next; nothing where it has ended."""
        assert self.process.stdout is not None
        if self.limit is None:
            return self.process.stdout.readline()
        timer = threading.Timer(self.limit, self._give_up)
        timer.start()
        try:
            return self.process.stdout.readline()
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self.late = True
        self.process.kill()

    def _reply(self) -> dict[str, Any]:
        line = self._line()
        if not line:
            status = self.process.wait()
            if self.late:
                raise PeerError(f"no answer within {self.limit:g} s")
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
    return {**values, **DEVICE[job.device]}
