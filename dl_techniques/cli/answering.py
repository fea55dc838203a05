"""Answers a list of (picture, question) pairs: the common body of `describe` and `ask`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dl_techniques.cli import session
from dl_techniques.cli.notes import complain, printable
from dl_techniques.cli.options import sampling_of
from dl_techniques.errors import DLTechniquesError, ImageError

if TYPE_CHECKING:
    import numpy as np

    from dl_techniques.evaluation.answerer import Answerer

BAD_INPUT = 2


def answer_all(tasks: list[tuple[str, str]], options: argparse.Namespace) -> int:
    """Answers every task, streaming text, or one JSON object a line with --json.

    All pictures are read before the model is loaded: that the last one is damaged is known
    before the first is described. The others are answered all the same.

    Args:
        tasks: pairs of a picture's path ("-" is stdin) and a question.
        options: preset, max_pixels, max_new_tokens, json and the sampling options.

    Returns:
        The exit code: 0, or 2 if a picture could not be read.

    Raises:
        DLTechniquesError: stdin is named twice.
    """
    pictures = read_pictures([path for path, _ in tasks], options.max_pixels)
    status = 0 if all(picture is not None for picture in pictures) else BAD_INPUT
    if not any(picture is not None for picture in pictures):
        return status
    known = [(*task, p) for task, p in zip(tasks, pictures, strict=True) if p is not None]
    with session.open_answerer(options.preset, sampling_of(options)) as answerer:
        tally = answer_known(answerer, known, len(tasks) > 1, options)
    if not options.json:
        tally.report()
    return status


def answer_known(
    answerer: Answerer,
    tasks: list[tuple[str, str, np.ndarray]],
    named: bool,
    options: argparse.Namespace,
) -> session.Tally:
    """Answers the tasks whose pictures could be read.

    Args:
        answerer: what answers.
        tasks: path, question and uint8[H, W, 3] of each.
        named: print the path in front of the answer.
        options: as for `answer_all`.
    """
    tally = session.Tally("picture", session.backend_of(answerer))
    for path, question, picture in tasks:
        if named and not options.json:
            print(f"{printable(path)}: ", end="", flush=True)
        asked = session.as_taught(question, options.preset)
        stream = answerer.stream(asked, [picture], options.max_new_tokens)
        timing = session.show(stream, visible=not options.json)
        tally.add(timing)
        if options.json:
            record = {"image": printable(path), "question": question, "text": stream.text}
            show_record(record, timing, tally, options)
    return tally


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
    record |= {
        "preset": options.preset,
        "backend": tally.backend,
        "tokens": timing.tokens,
        "first_token_seconds": timing.first_token_seconds,
        "tokens_per_second": timing.tokens_per_second,
        "first_token_since_start_seconds": tally.since_start if tally.count == 1 else None,
    }
    print(json.dumps(record, ensure_ascii=False), flush=True)
