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
from typing import TYPE_CHECKING, Any

from dl_techniques.cli.options import Sampling
from dl_techniques.cli.progress import Progress
from dl_techniques.cli.quick_load import loaded_on_the_host

if TYPE_CHECKING:
    import numpy as np

    from dl_techniques.models.vlm.fast_vlm.streaming import TextStream


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

    Raises:
        ImageError: a picture is missing, damaged, or larger than `max_pixels`.
    """
    from dl_techniques.data.images import load_image

    # No encoder takes as much as 2048 px: a larger JPEG may be read at half its size.
    return [load_image(path, max_pixels=max_pixels, enough=2048) for path in paths]


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
        from dl_techniques import FastVLMCausalLM

        with loaded_on_the_host():
            model = FastVLMCausalLM.from_preset(preset)
        if fuse and not model.reparameterized:
            model.reparameterize()
    return model


def set_sampling(model: Any, sampling: Sampling) -> None:
    """Compiles the model with the sampler that the options ask for."""
    from keras_hub import samplers

    if sampling.greedy:
        model.compile(sampler="greedy")
        return
    draw = {"temperature": sampling.temperature, "seed": sampling.seed}
    if sampling.top_p is not None:
        sampler = samplers.TopPSampler(p=sampling.top_p, k=sampling.top_k, **draw)
    elif sampling.top_k is not None:
        sampler = samplers.TopKSampler(k=sampling.top_k, **draw)
    else:
        sampler = samplers.RandomSampler(**draw)
    model.compile(sampler=sampler)


def stream_answer(
    model: Any, question: str, pictures: list[np.ndarray], max_new_tokens: int
) -> TextStream:
    """The pieces of one answer as they come."""
    inputs = {"prompts": question, "images": pictures or None}
    stream: TextStream = model.stream(inputs, max_new_tokens=max_new_tokens)
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


def report_timing(timing: Timing, since_start: float | None = None) -> None:
    """Prints the measured times on stderr.

    Args:
        timing: the times of the answer.
        since_start: seconds from the start of the command to the first token, if known.
    """
    if timing.first_token_seconds is None:
        print("no token was generated", file=sys.stderr)
        return
    line = f"first token {timing.first_token_seconds:.2f} s after the question"
    if since_start is not None:
        line += f" ({since_start:.2f} s after the start)"
    rate = timing.tokens_per_second
    line += f", {rate:.1f} tokens/s" if rate is not None else ""
    print(f"{line}, {timing.tokens} tokens", file=sys.stderr)
