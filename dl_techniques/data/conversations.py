"""Conversation records on disk: one JSON object a line, with pictures by path.

A record is `{"images": [path, ...], "messages": [{"role", "content"}, ...]}`. The forms of
public sets (LLaVA, ShareGPT, tables of questions and answers) are read too, see `record_forms`
and `record_files`. Whatever would stop a training run later is told when a file is read, with
the file and the line.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dl_techniques.data.data_uri import is_data_uri
from dl_techniques.data.files import atomic_writer
from dl_techniques.data.records.record_files import records_of
from dl_techniques.data.records.record_forms import IMAGE_MARK, own_form
from dl_techniques.errors import PromptError, shorten

Conversation = dict[str, Any]

# Bad records that a message quotes; the others are counted.
_QUOTED = 5


def read_conversations(
    path: str | os.PathLike,
    image_root: str | os.PathLike | None = None,
    *,
    learn: bool = True,
    missing_pictures: Literal["warn", "error", "ignore"] = "warn",
    skip_bad: int = 0,
) -> list[Conversation]:
    """Read and check a whole file.

    Args:
        path: A `.jsonl` file, a `.json` file that holds one list, or a `.csv` file with the
            columns `image`, `question` and `answer`. UTF-8.
        image_root: Folder that relative picture paths start from; None: the file's own folder.
        learn: Whether the records are for training: each must end with an answer. False: files
            of questions are read as well.
        missing_pictures: What to do about pictures that are no file: tell them in a warning,
            take their records for bad, or nothing. Pictures are not opened.
        skip_bad: Most bad records to leave out. What is left out is told in a warning.

    Returns:
        Records in the package's form, with picture paths joined to `image_root`. Data URIs stay.

    Raises:
        PromptError: the file cannot be read, it holds no good record, or more than `skip_bad`
            records are wrong; says where.
        ValueError: a negative `skip_bad`, an unknown `missing_pictures`.

    Example:
        >>> import json, os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "train.csv")
        >>> with open(path, "w") as file:
        ...     _ = file.write("question,answer\\nWhat is two and two?,Four.\\n")
        >>> [message["content"] for message in read_conversations(path)[0]["messages"]]
        ['What is two and two?', 'Four.']
    """
    if skip_bad < 0 or missing_pictures not in ("warn", "error", "ignore"):
        raise ValueError(
            f"skip_bad={skip_bad} must be at least 0, and missing_pictures={missing_pictures!r} "
            "'warn', 'error' or 'ignore'."
        )
    path = Path(path)
    root = path.parent if image_root is None else Path(image_root)
    records: list[Conversation] = []
    bad: list[str] = []
    missing: list[str] = []
    for where, data in records_of(path):
        try:
            record = located_record(data, where, root, learn)
            absent = (
                []
                if missing_pictures == "ignore"
                else absent_pictures(record["images"], root, where)
            )
            if absent and missing_pictures == "error":
                raise PromptError(absent[0])
        except PromptError as error:
            bad.append(str(error))
            if len(bad) > skip_bad:
                raise _too_many(error, bad, path, skip_bad) from None
        else:
            missing += absent
            records.append(record)
    if not records:
        raise PromptError(f"'{shorten(path)}' holds no conversation{_after(bad)}.")
    _tell(bad, f"{len(bad)} bad record(s) of {len(records) + len(bad)} are left out", path)
    _tell(missing, f"{len(missing)} picture(s) are missing, training will stop at them", path)
    return records


def write_conversations(path: str | os.PathLike, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records, one a line; the file appears only when all of them are written.

    Args:
        path: The `.jsonl` file to write; an older one is replaced.
        records: Records as in the module's description, pictures as paths.

    Returns:
        How many records were written.

    Raises:
        PromptError: a record is wrong; nothing is written then.
    """
    count = 0
    with atomic_writer(path) as file:
        for record in records:
            checked = parse_conversation(record, f"{shorten(path)}, record {count + 1}")
            file.write(json.dumps(checked, ensure_ascii=False) + "\n")
            count += 1
    return count


def parse_conversation(data: Any, where: str = "record", *, learn: bool = False) -> Conversation:
    """Check one record and bring it to the package's form.

    Args:
        data: A record in any of the forms of `record_forms`.
        where: Place named in errors, e.g. `train.jsonl, line 3`.
        learn: Whether it is for training: the last message must be the assistant's.

    Returns:
        `{"images": [str, ...], "messages": [{"role", "content"}, ...]}`.

    Raises:
        PromptError: a wrong key, type, role or order, or a number of `<image>` marks that
            differs from that of the pictures.

    Example:
        >>> parse_conversation({"conversations": [{"from": "human", "value": "Hi"}]})
        {'images': [], 'messages': [{'role': 'user', 'content': 'Hi'}]}
    """
    record = own_form(data, where)
    messages = record["messages"]
    for i, message in enumerate(messages):
        _check_text(message["role"], message["content"], f"{where}, message {i}")
    _check_order([message["role"] for message in messages], where, learn)
    _check_marks(messages, len(record["images"]), where)
    return record


def _check_text(role: str, content: str, where: str) -> None:
    spoken = content.replace(IMAGE_MARK, "") if role == "user" else content
    if role != "system" and not spoken.strip():
        raise PromptError(
            f"{where}: the content must be a non-empty text, got {shorten(repr(content))}."
        )
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"{where}: character {error.start} is {content[error.start]!r}, half of a surrogate "
            "pair and no character."
        ) from error


def _check_order(roles: Sequence[str], where: str, learn: bool) -> None:
    turns = roles[1:] if roles[0] == "system" else roles
    if not turns or any(r != ("user", "assistant")[i % 2] for i, r in enumerate(turns)):
        more = ", ..." if len(roles) > 8 else ""
        raise PromptError(
            f"{where}: user and assistant must take turns after an optional system message, "
            f"got {', '.join(roles[:8])}{more}."
        )
    if learn and turns[-1] == "user":
        raise PromptError(
            f"{where}: the last message is a question, so there is no answer to learn; give its "
            "answer or leave it out."
        )


def _check_marks(messages: Sequence[Mapping[str, str]], pictures: int, where: str) -> None:
    marks = sum(m["content"].count(IMAGE_MARK) for m in messages if m["role"] == "user")
    if marks and marks != pictures:
        raise PromptError(
            f"{where}: {marks} {IMAGE_MARK} mark(s) but {pictures} picture(s); give one picture "
            "per mark, or leave the marks out to put all pictures first."
        )


def located_record(data: Any, where: str, root: Path, learn: bool) -> Conversation:
    """A record of a file, with its pictures' places.

    Args:
        data: what the file holds, or the `PromptError` that stands in its place.
        where: of the record, for errors.
        root: that relative picture paths start from.
        learn: as in `parse_conversation`.

    Raises:
        PromptError: as `parse_conversation`, or a picture by an address.
    """
    if isinstance(data, PromptError):
        raise data
    record = parse_conversation(data, where, learn=learn)
    record["images"] = [_located(image, root, where) for image in record["images"]]
    return record


def _located(image: str, root: Path, where: str) -> str:
    """Where a picture lies, or the data URI that it is."""
    if is_data_uri(image):
        return image
    if "://" in image:
        raise PromptError(
            f"{where}: picture '{shorten(image)}' is an address; addresses are not fetched, "
            "download it and give the file's path."
        )
    return str(root / image)


def absent_pictures(images: Sequence[str], root: Path, where: str) -> list[str]:
    """What to say of pictures that are no file."""
    return [
        f"{where}: picture '{shorten(image)}' is no file; relative paths start from "
        f"'{shorten(root)}', give image_root= for another folder."
        for image in images
        if not is_data_uri(image) and not _is_file(image)
    ]


def _is_file(path: str) -> bool:
    try:
        return os.path.isfile(path)
    except ValueError:  # a zero byte in the name
        return False


def _too_many(error: PromptError, bad: Sequence[str], path: Path, skip_bad: int) -> PromptError:
    """The error that ends the reading: the only one, or all that there were."""
    if not skip_bad:
        return error
    return PromptError(
        f"'{shorten(path)}' has more than skip_bad={skip_bad} bad records: {_quoted(bad)}"
    )


def _tell(found: Sequence[str], what: str, path: Path) -> None:
    if found:
        warnings.warn(f"'{shorten(path)}': {what}: {_quoted(found)}", stacklevel=3)


def _quoted(bad: Sequence[str]) -> str:
    """The first errors in one line."""
    more = f"; and {len(bad) - _QUOTED} more" if len(bad) > _QUOTED else ""
    return "; ".join(shorten(error, 400) for error in bad[:_QUOTED]) + more


def _after(bad: Sequence[str]) -> str:
    return f" that can be used: {_quoted(bad)}".rstrip(".") if bad else ""
