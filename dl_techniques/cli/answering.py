"""Answers a list of (picture, question) pairs: the common body of `describe` and `ask`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dl_techniques.cli import session
from dl_techniques.cli.notes import complain, printable
from dl_techniques.cli.options import sampling_of, writing_of
from dl_techniques.errors import DLTechniquesError, ImageError

if TYPE_CHECKING:
    import keras
    import numpy as np

    from dl_techniques.models.vlm.fast_vlm.answer.streaming import TextStream

BAD_INPUT = 2


def answer_all(tasks: list[tuple[str, str]], options: argparse.Namespace) -> int:
    """Answers every task, streaming text, or one JSON object a line with --json.

    All pictures are read before the model is loaded: that the last one is damaged is known
    before the first is described. The others are answered all the same.

    Args:
        tasks: pairs of a picture's path ("-" is stdin) and a question.
        options: preset, max_pixels, max_new_tokens, json, logprobs and how to choose and write.

    Returns:
        The exit code: 0, or 2 if a picture could not be read.

    Raises:
        DLTechniquesError: stdin is named twice, or log-probabilities are to be printed as text.
    """
    if options.logprobs is not None and not options.json:
        raise DLTechniquesError("--logprobs are printed with --json only; add it")
    pictures = read_pictures([path for path, _ in tasks], options.max_pixels)
    status = 0 if all(picture is not None for picture in pictures) else BAD_INPUT
    if not any(picture is not None for picture in pictures):
        return status
    model = session.load_model(options.preset)
    session.set_sampling(model, sampling_of(options))
    wanted = writing_of(options) | {
        "max_new_tokens": options.max_new_tokens,
        "return_logprobs": options.logprobs,
        "return_certainty": options.json,
    }
    tally = session.Tally("picture")
    for (path, question), picture in zip(tasks, pictures, strict=True):
        if picture is None:
            continue
        if len(tasks) > 1 and not options.json:
            print(f"{printable(path)}: ", end="", flush=True)
        asked = session.as_taught(question, options.preset)
        stream = session.stream_answer(model, asked, [picture], **wanted)
        timing = session.show(stream, visible=not options.json)
        tally.add(timing)
        if options.json:
            record: dict[str, Any] = {
                "image": printable(path),
                "question": question,
                "text": stream.text,
                "certainty": stream.certainty,
            }
            if options.logprobs is not None:
                record["logprobs"] = logprob_records(model, stream)
            show_record(record, timing, tally, options)
    if not options.json:
        tally.report()
    return status


def logprob_records(model: keras.Model, stream: TextStream) -> list[dict[str, Any]]:
    """The log-probabilities of an answer's tokens, with the texts that the tokens stand for."""
    text = model.preprocessor.tokenizer.detokenize
    return [
        {
            "token": text([known.token]),
            "logprob": known.logprob,
            "top": [{"token": text([token]), "logprob": value} for token, value in known.top],
        }
        for known in stream.logprobs
    ]


def read_pictures(paths: Iterable[str], max_pixels: int) -> list[np.ndarray | None]:
    """Reads pictures; None stands for one that cannot be read, which is named on stderr.

    Raises:
        DLTechniquesError: stdin is named twice.
    """
    paths = list(paths)
    if paths.count(session.STDIN) > 1:
        raise DLTechniquesError("'-' is the picture on stdin, which can be read once; name files")
    pictures: list[np.ndarray | None] = []
    for path in paths:
        try:
            pictures += session.read_pictures([path], max_pixels)
        except ImageError as error:
            if len(paths) == 1:
                raise
            complain(error)
            pictures.append(None)
    return pictures


def show_record(
    record: dict[str, Any],
    timing: session.Timing,
    tally: session.Tally,
    options: argparse.Namespace,
) -> None:
    """Prints the JSON record of one answer on stdout."""
    import keras

    record |= {
        "preset": options.preset,
        "backend": keras.backend.backend(),
        "tokens": timing.tokens,
        "first_token_seconds": timing.first_token_seconds,
        "tokens_per_second": timing.tokens_per_second,
        "first_token_since_start_seconds": tally.since_start if tally.count == 1 else None,
    }
    print(json.dumps(record, ensure_ascii=False), flush=True)
