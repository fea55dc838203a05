"""What describe, ask, chat and benchmark share: load a model, stream an answer, time it.

Everything heavy is imported inside the functions: a missing file or a bad option must not cost
the seconds that Keras takes to start.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from dl_techniques.cli.clock import since_start
from dl_techniques.cli.notes import note
from dl_techniques.cli.progress import Progress
from dl_techniques.errors import PresetError
from dl_techniques.loading.for_answers import load_for_answers
from dl_techniques.loading.for_answers import set_sampling as set_sampling
from dl_techniques.loading.source import OF_OTHER_RUNTIMES, find_quickly

if TYPE_CHECKING:
    import numpy as np

    from dl_techniques.evaluation.answerer import Answerer, Pieces
    from dl_techniques.loading.for_answers import Sampling


STDIN = "-"


@dataclass
class Timing:
    """The times of one streamed answer.

    Attributes:
        first_token_seconds: from the question to the first piece of text, or None if none came.
        seconds: from the question to the end.
        tokens: number of tokens of the answer, its end mark included; None where the runtime does
            not tell.
        tokens_per_second: rate of the tokens after the first, or None where there are too few.
    """

    first_token_seconds: float | None = None
    seconds: float = 0.0
    tokens: int | None = None
    tokens_per_second: float | None = None


def read_pictures(paths: Iterable[str | Path], max_pixels: int) -> list[np.ndarray]:
    """Reads pictures as uint8[H, W, 3].

    Args:
        paths: of files; "-" is stdin.
        max_pixels: larger pictures are refused.

    Raises:
        ImageError: a picture is missing, damaged, or larger than `max_pixels`.
    """
    from dl_techniques.data.images import load_image

    sources = [sys.stdin.buffer if path == STDIN else path for path in paths]
    # No encoder takes as much as 2048 px: a larger JPEG may be read at half its size.
    return [load_image(source, max_pixels=max_pixels, enough=2048) for source in sources]


def as_taught(question: str, preset: str) -> str:
    """The question in one form, whether it begins with a capital or not.

    The shipped models were taught questions of both forms, and one that hangs between two answers
    would be told apart by that. Others are asked in the user's words.
    """
    from dl_techniques.models.presets.shipped import shipped_presets

    word = question.split(" ", 1)[0]
    if preset not in shipped_presets() or word == "I" or word[1:] != word[1:].lower():
        return question
    return question[:1].lower() + question[1:]


@contextmanager
def open_answerer(preset: str, sampling: Sampling, server: str | None = None) -> Iterator[Answerer]:
    """What a preset, or the file of another runtime, is: ready to answer. Or a server.

    Args:
        preset: name of a shipped preset, a folder, or a file.
        sampling: how tokens are chosen.
        server: address of a server that is asked instead, as it is set.

    Raises:
        DLTechniquesError: nothing there, or nothing that answers so.
    """
    if server is not None:
        from dl_techniques.hosts.server import ServerAnswerer

        yield ServerAnswerer(server)
        return
    from dl_techniques.evaluation import answerer

    with ExitStack() as stack:
        with Progress(f"loading {preset}"):
            opened = stack.enter_context(answerer.open_answerer(preset, sampling=sampling))
        yield opened


def backend_of(answerer: Answerer) -> str:
    """What computes: the name of Keras' backend, or of another runtime."""
    import keras

    if answerer.runtime != "keras":
        return answerer.runtime
    return str(keras.backend.backend())


def load_model(preset: str, fuse: bool = True) -> Any:
    """Loads a vision-language model.

    Args:
        preset: name of a shipped preset, or a folder.
        fuse: fuse the encoder for inference, where it is not fused yet.

    Returns:
        A `FastVLMCausalLM`.

    Raises:
        PresetError: there is no such preset, or it is the file of another runtime.
    """
    from dl_techniques.models.presets.shipped import shipped_presets

    found = None if preset in shipped_presets() else find_quickly(preset)
    if found is not None and found.kind in OF_OTHER_RUNTIMES:
        raise PresetError(
            f"{preset} is for another runtime ({found.kind}), which remembers nothing between "
            "questions and tells no phases; use ask, describe or evaluate, or name the preset that "
            "it was exported from"
        )
    with Progress(f"loading {preset}"):
        return load_for_answers(preset, fuse=fuse)


def show(stream: Pieces, visible: bool) -> Timing:
    """Runs a stream to its end, printing it as it comes, and times it.

    Args:
        stream: the answer; its `text` is whole afterwards.
        visible: print the text on stdout.

    Returns:
        The times, from this call on.
    """
    timing, early = Timing(), 0
    start = time.perf_counter()
    for piece in stream:
        if timing.first_token_seconds is None:
            timing.first_token_seconds = time.perf_counter() - start
            early = max(1, stream.tokens or 0)  # a server counts at the end
        if visible:
            print(piece, end="", flush=True)
    timing.seconds = time.perf_counter() - start
    if visible:
        print(flush=True)
    timing.tokens = stream.tokens
    if timing.first_token_seconds is None or timing.tokens is None:
        return timing
    if timing.tokens > early:
        decoding = timing.seconds - timing.first_token_seconds
        timing.tokens_per_second = (timing.tokens - early) / decoding
    return timing


class Tally:
    """The times of the answers of one command, told in one line at its end.

    Args:
        what: what an answer is about, such as "picture".
        backend: what computes, in words.
    """

    def __init__(self, what: str, backend: str) -> None:
        self.what, self.backend = what, backend
        self.count = self.tokens = 0
        self.since_start: float | None = None  # seconds from the command's start to the first token
        self._later: list[float] = []
        self._rates: list[float] = []

    def add(self, timing: Timing) -> None:
        """Counts an answer that has just ended."""
        if self.count == 0 and timing.first_token_seconds is not None:
            began = since_start() - timing.seconds
            self.since_start = began + timing.first_token_seconds
        elif timing.first_token_seconds is not None:
            self._later.append(timing.first_token_seconds)
        self.count += 1
        self.tokens += timing.tokens or 0
        if timing.tokens_per_second is not None:
            self._rates.append(timing.tokens_per_second)

    def text(self) -> str:
        """The line."""
        counted = f"{self.tokens} tokens" if self.tokens else f"1 {self.what}"
        if self.count > 1:
            counted = f"{self.count} {self.what}s"
        parts = [f"{self.backend}: {counted}"]
        if self.since_start is not None:
            parts.append(f"first token {self.since_start:.2f} s after the start")
        if self._later:
            parts.append(f"{median(self._later):.2f} s after a later question")
        if self._rates:
            parts.append(f"{median(self._rates):.1f} tokens/s")
        return ", ".join(parts)

    def report(self) -> None:
        """Prints the line on stderr, if anything was answered."""
        if self.count:
            note(self.text())
