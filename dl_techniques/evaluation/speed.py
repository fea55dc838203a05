"""The stopwatch of the benchmark: cold starts of a command, single calls, memory, the machine.

Every figure is of wall-clock times on this machine; what else ran on it is in them.

Example:
    >>> from dl_techniques.evaluation.speed import median
    >>> median([3.0, 1.0, 2.0])
    2.0
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dl_techniques.errors import DLTechniquesError

MEGABYTE = 1_000_000
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "XLA_FLAGS",
)  # fmt: skip


@dataclass(frozen=True)
class ColdStart:
    """One command in a process of its own.

    Attributes:
        first_text_seconds: from the start of the process to the first byte on its stdout.
        seconds: to its end.
        peak_megabytes: peak resident memory, in 10^6 bytes.
    """

    first_text_seconds: float
    seconds: float
    peak_megabytes: float


def median(values: Sequence[float]) -> float:
    """The median of some times."""
    return float(statistics.median(values))


def peak_bytes(ru_maxrss: int, platform: str = sys.platform) -> int:
    """Bytes of a `ru_maxrss`, which macOS gives in bytes and Linux in KiB."""
    return ru_maxrss if platform == "darwin" else ru_maxrss * 1024


def own_peak_megabytes() -> float:
    """Peak resident memory of this process so far, in 10^6 bytes."""
    import resource

    return peak_bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / MEGABYTE


def measure_cold(command: Sequence[str], environment: Mapping[str, str]) -> ColdStart:
    """Runs a command that streams text to stdout, and times it from the outside.

    Args:
        command: the program and its arguments.
        environment: its environment.

    Raises:
        DLTechniquesError: the command failed; the message holds the end of its stderr.
    """
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=dict(environment), bufsize=0
        )
        assert process.stdout is not None
        process.stdout.read(1)
        first = time.perf_counter() - start
        process.stdout.read()
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()[-400:]
            raise DLTechniquesError(f"{command[0]} failed with {process.returncode}: {said}")
    return ColdStart(first, seconds, peak_bytes(usage.ru_maxrss) / MEGABYTE)


def cold_starts(command: Sequence[str]) -> dict[str, ColdStart]:
    """The first run with an empty cache of compiled programs, and the run after it.

    Returns:
        `{"first run": ..., "next run": ...}`.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "XDG_CACHE_HOME": folder, "LOCALAPPDATA": folder}
        environment["JAX_COMPILATION_CACHE_DIR"] = os.path.join(folder, "jax")
        return {name: measure_cold(command, environment) for name in ("first run", "next run")}


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Calls a function and waits for its result.

    Backends return before they have computed: the first tensor of the result is read.

    Returns:
        The result and the seconds until it could be read.
    """
    import keras

    start = time.perf_counter()
    result = function()
    for leaf in keras.tree.flatten(result)[:1]:
        if keras.ops.is_tensor(leaf):
            keras.ops.convert_to_numpy(leaf)
    return result, time.perf_counter() - start


def as_numpy(tensor: Any) -> np.ndarray:
    """A tensor of any backend as a numpy array."""
    import keras

    array: np.ndarray = keras.ops.convert_to_numpy(tensor)
    return array


def thread_settings() -> dict[str, Any]:
    """What says how many threads compute: the variables that are set, and what the backend tells.

    JAX on CPU takes a thread for each core and tells no number.
    """
    import keras

    found: dict[str, Any] = {n: os.environ[n] for n in THREAD_VARIABLES if n in os.environ}
    backend = keras.config.backend()
    if backend == "torch":
        import torch

        found["torch"] = torch.get_num_threads()
    elif backend == "tensorflow":
        import tensorflow as tf

        found["tensorflow"] = tf.config.threading.get_intra_op_parallelism_threads() or "all cores"
    return found
