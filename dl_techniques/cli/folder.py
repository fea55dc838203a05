"""Describes every picture of a folder into a file of JSON lines, and goes on where it stopped.

Every picture gets one line: `{"image", "question", "text"}`, or `{"image", "error"}` if it cannot
be read. Lines are appended batch by batch, and a last line that was cut short is taken away when
the command starts again.

Example:
    $ fastvlm describe photos --output captions.jsonl
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dl_techniques.cli import session
from dl_techniques.cli.answering import BAD_INPUT
from dl_techniques.cli.notes import complain, note
from dl_techniques.cli.options import sampling_of, writing_of
from dl_techniques.errors import DLTechniquesError, ImageError

if TYPE_CHECKING:
    import numpy as np

    from dl_techniques.evaluation.answerer import Answerer

NOTE_SECONDS = 5.0


def describe_folder(folder: Path, question: str, options: argparse.Namespace) -> int:
    """Describes the pictures of a folder that the output does not have yet.

    Args:
        folder: searched with its subfolders, for the usual endings of pictures.
        question: asked about every picture.
        options: output, batch_size, preset, max_pixels, max_new_tokens and how to choose and write.

    Returns:
        The exit code: 0, or 2 if the output names a picture that could not be read.

    Raises:
        DLTechniquesError: no pictures, an output that cannot be written or is something else, or
            an option that is not for folders.
    """
    if options.server is not None or options.logprobs is not None:
        raise DLTechniquesError("--server and --logprobs are not for folders; leave them out")
    names = picture_names(folder)
    output = Path(options.output)
    try:
        done = recover(output)
        waiting = [name for name in names if name not in done]
        broken = any(done.get(name, False) for name in names)
        if done:
            note(f"{output} has {len(done)} pictures, {len(waiting)} are left")
        if waiting:
            with session.open_answerer(options.preset, sampling_of(options)) as answerer:
                broken |= _describe(answerer, folder, waiting, question, options)
    except OSError as error:
        raise DLTechniquesError(f"{output} cannot be read or written: {error}") from error
    return BAD_INPUT if broken else 0


def picture_names(folder: Path) -> list[str]:
    """The pictures below a folder, sorted, as paths from it with forward slashes.

    Raises:
        DLTechniquesError: there are none.
    """
    from dl_techniques.data.images import PICTURE_ENDINGS

    found = (path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_ENDINGS)
    names = sorted(path.relative_to(folder).as_posix() for path in found if path.is_file())
    if not names:
        raise DLTechniquesError(f"{folder} has no pictures ({', '.join(PICTURE_ENDINGS)})")
    return names


def recover(output: Path) -> dict[str, bool]:
    """Reads an output, after cutting off a last line that was not written to its end.

    Args:
        output: the file; it need not exist.

    Returns:
        Of each picture that has a line, whether it could not be read.

    Raises:
        DLTechniquesError: a whole line is not one of this command; the file is left as it is.
    """
    if not output.exists():
        return {}
    content = output.read_bytes()
    whole = content.rfind(b"\n") + 1
    done: dict[str, bool] = {}
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            record = json.loads(line)
            done[record["image"]] = "error" in record
        except (ValueError, KeyError, TypeError) as error:
            raise DLTechniquesError(
                f"line {number} of {output} is no record of a picture; name another --output"
            ) from error
    if whole < len(content):
        if not content[whole:].startswith(b'{"image": '[: len(content) - whole]):
            raise DLTechniquesError(f"{output} is no file of this command; name another --output")
        os.truncate(output, whole)
    return done


def _describe(
    answerer: Answerer, folder: Path, names: list[str], question: str, options: argparse.Namespace
) -> bool:
    """Appends a line for each name; returns whether a picture could not be read."""
    asked, broken = session.as_taught(question, options.preset), False
    start = told = time.perf_counter()
    with open(options.output, "ab") as file:
        for first in range(0, len(names), options.batch_size):
            batch = names[first : first + options.batch_size]
            records: list[dict[str, str]] = []
            pictures: list[np.ndarray] = []
            for name in batch:
                records.append({"image": name})
                try:
                    pictures += session.read_pictures([folder / name], options.max_pixels)
                except ImageError as error:
                    complain(error)
                    records[-1]["error"] = str(error)
            broken |= len(pictures) < len(batch)
            # A batch of one size throughout: another would be compiled anew.
            size = options.batch_size if len(names) > options.batch_size else len(batch)
            padded = pictures + pictures[:1] * (size - len(pictures))
            texts = iter(_answer(answerer, asked, padded, options) if pictures else [])
            for record in records:
                if "error" not in record:
                    record |= {"question": question, "text": next(texts)}
            file.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
            file.flush()
            count, now = first + len(batch), time.perf_counter()
            if now - told > NOTE_SECONDS or count == len(names):
                told, rate = now, count / (now - start)
                left = (len(names) - count) / rate
                note(f"{count} of {len(names)} pictures, {rate:.1f} a second, {left:.0f} s left")
    return broken


def _answer(
    answerer: Answerer, question: str, pictures: list[np.ndarray], options: argparse.Namespace
) -> list[str]:
    """One answer a picture."""
    from dl_techniques.evaluation.answerer import KerasAnswerer

    questions, images = [question] * len(pictures), [[picture] for picture in pictures]
    wanted = writing_of(options)
    if isinstance(answerer, KerasAnswerer):
        inputs = {"prompts": questions, "images": images}
        longest = options.max_new_tokens
        return list(answerer.model.generate(inputs, max_new_tokens=longest, **wanted))
    if wanted:
        raise DLTechniquesError(
            f"{options.preset} is answered by another runtime ({answerer.runtime}), which writes "
            "as it was exported; leave out stop texts and penalties"
        )
    return list(answerer.answer(questions, images, options.max_new_tokens))
