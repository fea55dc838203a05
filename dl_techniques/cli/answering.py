"""Answers a list of (picture, question) pairs: the common body of `describe` and `ask`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dl_techniques.cli import session
from dl_techniques.cli.notes import complain, printable
from dl_techniques.cli.options import sampling_of, writing_of
from dl_techniques.errors import DLTechniquesError, ImageError

if TYPE_CHECKING:
    import keras
    import numpy as np

    from dl_techniques.evaluation.answerer import Answerer, Pieces
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
        DLTechniquesError: stdin is named twice, log-probabilities are to be printed as text, or
            an option means nothing to another runtime.
    """
    if options.server is not None:
        return answer_all_by_server(tasks, options)
    if options.logprobs is not None and not options.json:
        raise DLTechniquesError("--logprobs are printed with --json only; add it")
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
        stream = stream_of(answerer, asked, picture, options)
        timing = session.show(stream, visible=not options.json)
        tally.add(timing)
        if options.json:
            record = {"image": printable(path), "question": question, "text": stream.text}
            record |= beside_text(answerer, stream, options)
            show_record(record, timing, tally, options)
    return tally


def stream_of(
    answerer: Answerer, question: str, picture: np.ndarray, options: argparse.Namespace
) -> Pieces:
    """One answer as it comes, written as the options say.

    Raises:
        DLTechniquesError: they say something that another runtime cannot do.
    """
    from dl_techniques.evaluation.answerer import KerasAnswerer

    wanted = writing_of(options)
    if isinstance(answerer, KerasAnswerer):
        wanted |= {"return_logprobs": options.logprobs, "return_certainty": options.json}
        return answerer.stream(question, [picture], options.max_new_tokens, **wanted)
    if wanted or options.logprobs is not None:
        raise DLTechniquesError(
            f"{options.preset} is answered by another runtime ({answerer.runtime}), which writes "
            "as it was exported; leave out stop texts, penalties and log-probabilities, or name "
            "the preset that it was exported from"
        )
    return answerer.stream(question, [picture], options.max_new_tokens)


def beside_text(answerer: Answerer, stream: Any, options: argparse.Namespace) -> dict[str, Any]:
    """What a record of an answer has beside its text, of a model of this package."""
    from dl_techniques.evaluation.answerer import KerasAnswerer

    if not isinstance(answerer, KerasAnswerer):
        return {}
    found: dict[str, Any] = {"certainty": stream.certainty}
    if options.logprobs is not None:
        found["logprobs"] = logprob_records(answerer.model, stream)
    return found


def answer_all_by_server(tasks: list[tuple[str, str]], options: argparse.Namespace) -> int:
    """As `answer_all`, by a server; the pictures' files are sent as they are.

    Raises:
        DLTechniquesError: the server does not answer, or an option means nothing to it.
    """
    from dl_techniques.hosts.server import ServerAnswerer

    if options.logprobs is not None:
        raise DLTechniquesError("--logprobs do not come through --server; leave one of them out")
    server = ServerAnswerer(options.server)
    wanted = request_fields(options)
    for path, question in tasks:
        if len(tasks) > 1 and not options.json:
            print(f"{printable(path)}: ", end="", flush=True)
        picture = sys.stdin.buffer.read() if path == session.STDIN else path
        stream = server.stream(question, [picture], options.max_new_tokens, **wanted)
        timing = session.show(stream, visible=not options.json)
        if options.json:
            record: dict[str, Any] = {
                "image": printable(path),
                "question": question,
                "text": stream.text,
                "server": options.server,
                "tokens": timing.tokens,
                "first_token_seconds": timing.first_token_seconds,
            }
            print(json.dumps(record, ensure_ascii=False), flush=True)
    return 0


def request_fields(options: argparse.Namespace) -> dict[str, Any]:
    """What the options ask of an answer, as fields of a request."""
    writing = writing_of(options)
    if "min_new_tokens" in writing:
        writing["min_tokens"] = writing.pop("min_new_tokens")
    sampling = {name: getattr(options, name) for name in ("temperature", "top_k", "top_p", "seed")}
    return writing | {name: value for name, value in sampling.items() if value is not None}


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
    record |= {
        "preset": options.preset,
        "backend": tally.backend,
        "tokens": timing.tokens,
        "first_token_seconds": timing.first_token_seconds,
        "tokens_per_second": timing.tokens_per_second,
        "first_token_since_start_seconds": tally.since_start if tally.count == 1 else None,
    }
    print(json.dumps(record, ensure_ascii=False), flush=True)
