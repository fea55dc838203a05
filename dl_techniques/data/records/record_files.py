"""The records of a training file, one after the other, each with the place it stands at.

Read are JSON lines, one JSON list, and CSV with a header of `image`, `question`, `answer`. A
byte order mark is skipped. What is inside a record is the affair of `record_forms`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from dl_techniques.errors import PromptError, shorten

# A record, or the error that stands in its place.
Found = tuple[str, Any]

CSV_ENDINGS = (".csv", ".tsv")
_CSV_COLUMNS = ("question", "answer")


def records_of(path: Path) -> Iterator[Found]:
    """The records of a file with their places, e.g. `train.jsonl, line 3`.

    A line that is no record at all is given as the `PromptError` that says why, so that the
    reader may count it and go on.

    Args:
        path: The file. `.csv` and `.tsv` are tables, everything else is JSON.

    Raises:
        PromptError: the file as a whole cannot be read.
    """
    name = shorten(path)
    is_table = path.suffix.lower() in CSV_ENDINGS
    try:
        # The csv module wants to see the line ends as they are.
        with path.open(encoding="utf-8-sig", newline="" if is_table else None) as file:
            text = file.read()
    except UnicodeDecodeError as error:
        raise PromptError(
            f"'{name}' cannot be read: byte {error.start} is not UTF-8; save the file as UTF-8."
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PromptError(f"'{name}' cannot be read: {reason}.") from error
    if is_table:
        yield from _table(text, name)
    elif text.lstrip().startswith("["):
        for i, data in enumerate(_json(text, name)):
            yield f"{name}, record {i + 1}", data
    else:
        yield from _lines(text, name)


def _lines(text: str, name: str) -> Iterator[Found]:
    # Not str.splitlines, which also splits at U+2028 and other marks that JSON may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            data = _json(line, where)
        except PromptError as error:
            yield where, error
        else:
            yield where, data


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise PromptError(
            f"{where}: not valid JSON ({error.msg}, column {error.colno})."
        ) from error
    except (ValueError, RecursionError) as error:  # a number too long, lists in lists in lists
        raise PromptError(f"{where}: not readable JSON ({error}).") from error


def _table(text: str, name: str) -> Iterator[Found]:
    """Rows of a table as records of one question and its answer."""
    first = text.split("\n", 1)[0]
    # Spreadsheets write semicolons where the comma is the decimal mark.
    delimiter = max(",;\t", key=first.count)
    rows = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    line = 1
    while True:
        where = f"{name}, line {line}"
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise PromptError(f"{where}: not valid CSV ({error}).") from error
        if row is None:
            return
        if not header:
            header = _header(row, where)
        elif any(cell.strip() for cell in row):
            yield where, _row(header, row, where)
        line = rows.line_num + 1


def _header(row: list[str], where: str) -> list[str]:
    header = [cell.strip().lower() for cell in row]
    missing = [column for column in _CSV_COLUMNS if column not in header]
    if missing or len(set(header)) < len(header):
        raise PromptError(
            f"{where}: the first line names the columns 'image', 'question' and 'answer', each "
            f"once; got {shorten(header)}."
        )
    return header


def _row(header: list[str], row: list[str], where: str) -> Any:
    if len(row) != len(header):
        return PromptError(
            f"{where}: {len(row)} values for {len(header)} columns; a text that holds the "
            "separator must stand in double quotes."
        )
    record: dict[str, Any] = dict(zip(header, row, strict=True))
    question, answer = record.pop("question"), record.pop("answer")
    record["messages"] = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return record
