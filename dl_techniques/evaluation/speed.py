"""Times a vision-language model as a user meets it: from a cold start, and in a warm process.

Every figure is a median of wall-clock times on this machine; what else ran on it is in them.

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
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dl_techniques.errors import DLTechniquesError

MEGABYTE = 1_000_000


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


@dataclass(frozen=True)
class WarmTimes:
    """Phases of one answer in a process that has answered before; medians in seconds.

    Attributes:
        preprocess: picture and question to arrays.
        encode: picture to rows of the decoder's width.
        prefill: prompt to the first logits.
        first_decode: one decoding step.
        first_token: question to the first text of the stream: the user's view of the above.
        tokens_per_second: of the tokens after the first.
        tokens: tokens of the answer.
    """

    preprocess: float
    encode: float
    prefill: float
    first_decode: float
    first_token: float
    tokens_per_second: float | None
    tokens: int


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


def measure_once(model: Any, inputs: dict[str, Any], max_new_tokens: int) -> WarmTimes:
    """Times one answer: each phase by itself, then the whole as a stream."""
    arrays, preprocess = timed(lambda: model.preprocessor.generate_preprocess(inputs))
    rows, encode = timed(lambda: model.encode_images(arrays["images"]))
    (logits, state), prefill = timed(lambda: model.prefill(arrays, rows, max_new_tokens))
    token = np.argmax(as_numpy(logits), axis=-1).astype("int32")
    _, decode = timed(lambda: model.decode_step(token, state))
    start = time.perf_counter()
    stream = model.stream(inputs, max_new_tokens=max_new_tokens)
    next(stream, "")
    first, early = time.perf_counter() - start, len(stream.token_ids)
    for _ in stream:
        pass
    decoding, tokens = time.perf_counter() - start - first, len(stream.token_ids)
    rate = (tokens - early) / decoding if tokens > early else None
    return WarmTimes(preprocess, encode, prefill, decode, first, rate, tokens)


def as_numpy(tensor: Any) -> np.ndarray:
    """A tensor of any backend as a numpy array."""
    import keras

    array: np.ndarray = keras.ops.convert_to_numpy(tensor)
    return array


def measure_warm(
    model: Any,
    inputs: dict[str, Any],
    max_new_tokens: int,
    repeats: int,
    on_repeat: Callable[[int], None] | None = None,
) -> WarmTimes:
    """Medians over some answers of a model that has answered once before.

    Args:
        model: a `FastVLMCausalLM`.
        inputs: one prompt with its picture, as `generate` takes it.
        max_new_tokens: longest answer.
        repeats: number of answers that are timed.
        on_repeat: called with 1 after each.

    Raises:
        ValueError: `repeats` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"expected at least one repeat, got {repeats}")
    measure_once(model, inputs, max_new_tokens)  # compiles
    times = []
    for _ in range(repeats):
        times.append(measure_once(model, inputs, max_new_tokens))
        if on_repeat is not None:
            on_repeat(1)
    return middle_of(times)


def middle_of(times: Sequence[WarmTimes]) -> WarmTimes:
    """The median of every figure; None where one of the runs has no such figure."""
    middle: dict[str, Any] = {}
    for name in asdict(times[0]):
        values = [getattr(t, name) for t in times]
        middle[name] = None if None in values else median(values)
    middle["tokens"] = int(middle["tokens"])
    return WarmTimes(**middle)
