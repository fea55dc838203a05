"""The other end of a peer's process, which does not wait for ever."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from tools.compare_peers.gpu.settings import Settings
from tools.compare_peers.job import Job
from tools.compare_peers.peers import Peer
from tools.compare_peers.workers import PeerError, Worker, environment

ANSWER_SECONDS = 60.0
"""For what a loaded peer is asked for."""
THREADS = "4"
"""Of a process beside a dozen others that compile."""


class LimitedWorker(Worker):
    """A process that is ended when an answer takes too long.

    Args:
        peer: which.
        folder: of the shape.
        seconds: for loading and compiling; later answers have `ANSWER_SECONDS`.

    Raises:
        PeerError: it could not be loaded, or not in time.
    """

    module = "tools.compare_peers.gpu.worker"

    def __init__(self, peer: Peer, folder: Path, seconds: float) -> None:
        self.seconds, self.late = seconds, False
        super().__init__(peer, folder)
        self.seconds = ANSWER_SECONDS

    def _environment(self, job: Job) -> dict[str, str]:
        device = Settings.read(self.folder).device
        return {**device_variables(device), **environment(self.peer, job, os.environ)}

    def _reply(self) -> dict[str, Any]:
        timer = threading.Timer(self.seconds, self._give_up)
        timer.start()
        try:
            return super()._reply()
        except PeerError as error:
            if self.late:
                raise PeerError(f"no answer within {self.seconds:.0f} s") from error
            raise
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        self.late = True
        self.process.kill()

    def device(self) -> str:
        """What the peer computes on."""
        name: str = self.ask("device")["device"]
        return name


def device_variables(device: str) -> dict[str, str]:
    """Variables that let many processes share one card and the cores beside it.

    Args:
        device: "cuda" or "cpu".
    """
    values = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "KERAS_TORCH_DEVICE": device,
        "TORCHINDUCTOR_COMPILE_THREADS": THREADS,
        "OMP_NUM_THREADS": THREADS,
        "TOKENIZERS_PARALLELISM": "false",
    }
    return values if device == "cuda" else {**values, "JAX_PLATFORMS": device}
