"""What describe, ask, chat and benchmark share: load a model, stream an answer, time it.

Everything heavy is imported inside the functions: a missing file or a bad option must not cost
the seconds that Keras takes to start.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from dl_techniques.cli.clock import since_start
from dl_techniques.cli.notes import note
from dl_techniques.cli.progress import Progress
from dl_techniques.loading.for_answers import load_for_answers
from dl_techniques.loading.for_answers import set_sampling as set_sampling

if TYPE_CHECKING:
    import keras
    import numpy as np

    from dl_techniques.models.vlm.fast_vlm.answer.streaming import TextStream


STDIN = "-"


@dataclass
class Timing:
    """The times of one streamed answer.

    Attributes:
        first_token_seconds: from the question to the first piece of text, or None if none came.
        seconds: from the question to the end.
        tokens: number of tokens of the answer, its end mark included.
        tokens_per_second: rate of the tokens after the first, or None where there are too few.
    """

    first_token_seconds: float | None = None
    seconds: float = 0.0
    tokens: int = 0
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
    from dl_techniques.models.presets.vlm_folder import shipped_presets

    word = question.split(" ", 1)[0]
    if preset not in shipped_presets() or word == "I" or word[1:] != word[1:].lower():
        return question
    return question[:1].lower() + question[1:]


def load_model(preset: str, fuse: bool = True) -> Any:
    """Loads a vision-language model.

    Args:
        preset: name of a shipped preset, or a folder.
        fuse: fuse the encoder for inference, where it is not fused yet.

    Returns:
        A `FastVLMCausalLM`.

    Raises:
        PresetError: there is no such preset.
    """
    with Progress(f"loading {preset}"):
        return load_for_answers(preset, fuse=fuse)


def stream_answer(
    model: keras.Model, question: str, pictures: list[np.ndarray], **wanted: Any
) -> TextStream:
    """The pieces of one answer as they come.

    Args:
        model: a `FastVLMCausalLM`.
        question: text.
        pictures: what it is about; none for a question alone.
        **wanted: of the model's `stream`.
    """
    inputs = {"prompts": question, "images": pictures or None}
    stream: TextStream = model.stream(inputs, **wanted)
    return stream


def show(stream: TextStream, visible: bool) -> Timing:
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
            early = len(stream.token_ids)
        if visible:
            print(piece, end="", flush=True)
    timing.seconds = time.perf_counter() - start
    if visible:
        print(flush=True)
    timing.tokens = len(stream.token_ids)
    if timing.first_token_seconds is not None and timing.tokens > early:
        decoding = timing.seconds - timing.first_token_seconds
        timing.tokens_per_second = (timing.tokens - early) / decoding
    return timing


class Tally:
    """The times of the answers of one command, told in one line at its end.

    Args:
        what: what an answer is about, such as "picture".
    """

    def __init__(self, what: str) -> None:
        self.what = what
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
        self.tokens += timing.tokens
        if timing.tokens_per_second is not None:
            self._rates.append(timing.tokens_per_second)

    def text(self) -> str:
        """The line."""
        import keras

        parts = [f"{keras.backend.backend()}: "]
        parts[0] += f"{self.count} {self.what}s" if self.count > 1 else f"{self.tokens} tokens"
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
