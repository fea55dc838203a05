"""Answers a list of (picture, question) pairs: the common body of `describe` and `ask`."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from dl_techniques.cli import session
from dl_techniques.cli.options import sampling_of


def answer_all(tasks: list[tuple[str, str]], options: argparse.Namespace) -> None:
    """Answers every task, streaming text, or one JSON object a line with --json.

    All pictures are read before the model is loaded: the last one being damaged is known
    before the first is described.

    Args:
        tasks: pairs of a picture's path and a question.
        options: preset, max_pixels, max_new_tokens, json and the sampling options.
    """
    pictures = session.read_pictures([path for path, _ in tasks], options.max_pixels)
    model = session.load_model(options.preset)
    session.set_sampling(model, sampling_of(options))
    for number, ((path, question), picture) in enumerate(zip(tasks, pictures, strict=True)):
        if len(tasks) > 1 and not options.json:
            print(f"{path}: ", end="", flush=True)
        before = seconds_since_start()
        stream = session.stream_answer(model, question, [picture], options.max_new_tokens)
        timing = session.show(stream, visible=not options.json)
        first = None
        if number == 0 and timing.first_token_seconds is not None:
            first = before + timing.first_token_seconds
        record = {"image": path, "question": question, "text": stream.text}
        finish(record, timing, first, options)


def seconds_since_start() -> float:
    """Seconds since the command started."""
    from dl_techniques.cli.main import STARTED

    return time.perf_counter() - STARTED


def finish(
    record: dict[str, Any],
    timing: session.Timing,
    first: float | None,
    options: argparse.Namespace,
) -> None:
    """Prints the JSON record on stdout, or the measured times on stderr."""
    if not options.json:
        session.report_timing(timing, first)
        return
    import keras

    record |= {
        "preset": options.preset,
        "backend": keras.backend.backend(),
        "tokens": timing.tokens,
        "first_token_seconds": timing.first_token_seconds,
        "tokens_per_second": timing.tokens_per_second,
        "first_token_since_start_seconds": first,
    }
    print(json.dumps(record, ensure_ascii=False), flush=True)
