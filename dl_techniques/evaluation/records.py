"""Sets of questions on disk: a folder with `records.jsonl` and the pictures it names.

One line is one question::

    {"image": "pictures/0001.png", "question": "How many cats are there?", "answer": "two",
     "baseline_question_only": "one"}

Optional fields: `baseline_question_only`, the answer of a model that never saw the picture;
`accepted`, a list of further right answers; `refusal`, true where it is right to say that one does
not know; `things`, a list of all that a description may name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dl_techniques.errors import DLTechniquesError

FILE_NAME = "records.jsonl"
REQUIRED = ("image", "question", "answer")
OPTIONAL = ("baseline_question_only",)
LISTS = ("accepted", "things")


@dataclass(frozen=True)
class QuestionRecord:
    """One question.

    Attributes:
        image: path of the picture.
        question: the question.
        answer: the right answer.
        baseline_question_only: what a model without the picture answered, if it is known.
        accepted: further right answers.
        refusal: whether the right answer is any that says one does not know.
        things: the names of all that is there, of which a description names some.
    """

    image: Path
    question: str
    answer: str
    baseline_question_only: str | None = None
    accepted: tuple[str, ...] = ()
    refusal: bool = False
    things: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuestionSet:
    """A named list of questions."""

    name: str
    records: tuple[QuestionRecord, ...]


def load_sets(folder: Path, limit: int | None = None) -> list[QuestionSet]:
    """All sets that `find_sets` finds, the first `limit` questions of each.

    Raises:
        DLTechniquesError: there is none, or one is damaged.
    """
    return [load_set(found, limit) for found in find_sets(folder)]


def find_sets(folder: Path) -> list[Path]:
    """The folders with a `records.jsonl`: `folder` itself, or those directly inside it.

    Raises:
        DLTechniquesError: there is none.
    """
    if (folder / FILE_NAME).is_file():
        return [folder]
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [path for path in inside if (path / FILE_NAME).is_file()]
    if not found:
        raise DLTechniquesError(
            f"no {FILE_NAME} in {folder} or in a folder inside it; expected one per set"
        )
    return found


def load_set(folder: Path, limit: int | None = None) -> QuestionSet:
    """Reads one set.

    Args:
        folder: holds `records.jsonl` and the pictures.
        limit: read only that many questions from the top.

    Raises:
        DLTechniquesError: a line is no record, a picture is missing, or there is no question.
    """
    records: list[QuestionRecord] = []
    path = folder / FILE_NAME
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DLTechniquesError(f"cannot read {path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if limit is not None and len(records) >= limit:
            break
        if line.strip():
            records.append(parse_record(line, folder, f"{path}, line {number}"))
    if not records:
        raise DLTechniquesError(f"{path} holds no question")
    return QuestionSet(folder.resolve().name, tuple(records))


def parse_record(line: str, folder: Path, where: str) -> QuestionRecord:
    """One record from one line of JSON; `where` names the line in errors.

    Raises:
        DLTechniquesError: the line is no record, or its picture is missing.
    """
    try:
        fields: Any = json.loads(line)
    except ValueError as error:
        raise DLTechniquesError(f"{where}: not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise DLTechniquesError(f"{where}: expected an object, got {type(fields).__name__}")
    for key in REQUIRED + OPTIONAL:
        if key in REQUIRED or fields.get(key) is not None:
            _check_text(key, fields.get(key), where)
    for key in LISTS:
        texts = fields.get(key)
        if not isinstance(texts, (list, type(None))):
            raise DLTechniquesError(
                f"{where}: expected a list of texts in {key!r}, got {repr(texts)[:100]}"
            )
        for text in texts or ():
            _check_text(key, text, where)
    refusal = fields.get("refusal")
    if not isinstance(refusal, (bool, type(None))):
        raise DLTechniquesError(
            f"{where}: expected true or false in 'refusal', got {repr(refusal)[:100]}"
        )
    image = folder / fields["image"]
    if not image.is_file():
        raise DLTechniquesError(f"{where}: the picture {image} does not exist")
    return QuestionRecord(
        image,
        fields["question"],
        fields["answer"],
        fields.get("baseline_question_only"),
        tuple(fields.get("accepted") or ()),
        bool(refusal),
        tuple(fields.get("things") or ()),
    )


def _check_text(key: str, value: Any, where: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise DLTechniquesError(f"{where}: expected a text in {key!r}, got {repr(value)[:100]}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise DLTechniquesError(
            f"{where}: {key!r} holds half a character (\\ud800 to \\udfff), which is no text; "
            "write the file again as UTF-8"
        )
