"""All that a training learns from, checked before its first step: every fault with file and row.

A source is a file that `read_conversations` reads, a folder with such files, or a folder with a
folder of pictures for each class.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dl_techniques.data.conversations import Conversation, absent_pictures, located_record
from dl_techniques.data.data_uri import is_data_uri
from dl_techniques.data.heif import is_heif, open_heif
from dl_techniques.data.images import PICTURE_ENDINGS
from dl_techniques.data.records.record_files import CSV_ENDINGS, records_of
from dl_techniques.errors import ImageError, PromptError, shorten

RECORD_ENDINGS = (".jsonl", ".json", *CSV_ENDINGS)
CLASS_QUESTION = "What is in the picture?"
MOST_TOLD = 20


@dataclass(frozen=True)
class TrainingSource:
    """One file or folder to learn from.

    Attributes:
        path: of the file or folder.
        weight: how often its records come in an epoch, on average.
        images: folder that relative picture paths start from; None: the file's own.
        question: of a folder a class, asked about every picture.
    """

    path: str
    weight: float = 1.0
    images: str | None = None
    question: str = CLASS_QUESTION

    def __post_init__(self) -> None:
        """Checks the weight."""
        if not self.weight > 0:
            raise PromptError(f"{shorten(self.path)}: weight is {self.weight}; expected above 0")


@dataclass
class TrainingRecords:
    """Checked records of several sources.

    Attributes:
        records: all of them, one source after the other.
        weights: float[N], how often each comes in an epoch.
        left_out: what is wrong with records that are left out.
    """

    records: list[Conversation] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def rows(self, multiple: int, seed: int = 0) -> np.ndarray:
        """int[M], the records of an epoch by their places, M a multiple of a number.

        A weight of 2.3 gives a record two places and, by chance, a third. Places that are missing
        to a whole batch are given to further records by chance.

        Args:
            multiple: rows of an update.
            seed: of the chances.

        Example:
            >>> TrainingRecords([{}, {}, {}], [1.0, 1.0, 2.0]).rows(4).tolist()
            [0, 1, 2, 2]
        """
        rng = np.random.default_rng((seed, 7))
        weights = np.asarray(self.weights)
        times = np.floor(weights + rng.random(len(weights)) * (weights % 1 > 0)).astype(int)
        rows = np.repeat(np.arange(len(weights)), times)
        if not len(rows):
            rows = np.arange(len(weights))
        missing = -len(rows) % multiple
        return np.concatenate([rows, rng.choice(rows, missing)])


def read_training_files(
    sources: Sequence[TrainingSource], skip_bad: int = 0, most_told: int = MOST_TOLD
) -> TrainingRecords:
    """Reads and checks everything; pictures are opened, not decoded.

    Args:
        sources: files and folders.
        skip_bad: most bad records to leave out.
        most_told: faults that an error quotes; the others are counted.

    Raises:
        PromptError: more than `skip_bad` records are wrong (all are named, with file and row), a
            source cannot be read at all, or there is no good record.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "my.jsonl"
        >>> _ = path.write_text('{"question": "Two and two?", "answer": "Four."}\\n')
        >>> len(read_training_files([TrainingSource(str(path))]).records)
        1
    """
    made = TrainingRecords()
    seen: dict[str, str | None] = {}
    for source in sources:
        for where, data, root in _found(source):
            try:
                record = located_record(data, where, root, True)
                _check_pictures(record["images"], root, where, seen)
            except PromptError as error:
                made.left_out.append(str(error))
                continue
            made.records.append(record)
            made.weights.append(source.weight)
    if len(made.left_out) > skip_bad:
        raise PromptError(_told(made.left_out, skip_bad, most_told))
    if not made.records:
        names = ", ".join(shorten(source.path) for source in sources)
        raise PromptError(f"nothing to learn from in {names or 'no file'}")
    return made


def _told(faults: Sequence[str], skip_bad: int, most: int) -> str:
    more = f"; and {len(faults) - most} more" if len(faults) > most else ""
    quoted = "; ".join(shorten(fault.rstrip("."), 300) for fault in faults[:most])
    allowed = f", more than skip_bad={skip_bad}" if skip_bad else ""
    advice = f"mend them, or leave them out by --skip-bad {len(faults)}"
    return f"{len(faults)} bad record(s){allowed}: {quoted}{more}; {advice}"


def _found(source: TrainingSource) -> list[tuple[str, Any, Path]]:
    """(place for errors, what stands there, root of its pictures) of every record."""
    path = Path(source.path)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in RECORD_ENDINGS)
        if not files:
            return _classes(path, source.question)
    elif path.suffix.lower() in PICTURE_ENDINGS:
        raise PromptError(f"{shorten(path)} is a picture; expected a file of questions or a folder")
    else:
        files = [path]
    found: list[tuple[str, Any, Path]] = []
    for file in files:
        root = file.parent if source.images is None else Path(source.images)
        found += [(where, data, root) for where, data in records_of(file)]
    return found


def _classes(folder: Path, question: str) -> list[tuple[str, Any, Path]]:
    """Pictures of a folder a class; the folder's name is the answer."""
    found: list[tuple[str, Any, Path]] = []
    for one in sorted(path for path in folder.iterdir() if path.is_dir()):
        answer = one.name.replace("_", " ")
        for picture in sorted(one.rglob("*")):
            if picture.suffix.lower() in PICTURE_ENDINGS:
                name = picture.relative_to(folder).as_posix()
                data = {"image": name, "question": question, "answer": answer}
                found.append((f"{shorten(folder)}, {name}", data, folder))
    if not found:
        raise PromptError(
            f"{shorten(folder)} holds neither {', '.join(RECORD_ENDINGS)} files nor a folder of "
            "pictures for each class"
        )
    return found


def _check_pictures(
    images: Sequence[str], root: Path, where: str, seen: dict[str, str | None]
) -> None:
    """Opens each picture once, so far as its header.

    Raises:
        PromptError: one is missing, or no picture.
    """
    for absent in absent_pictures(images, root, where):
        raise PromptError(absent)
    for image in images:
        if is_data_uri(image):
            continue
        if image not in seen:
            seen[image] = _fault(image)
        if seen[image] is not None:
            raise PromptError(f"{where}: picture '{shorten(image)}' {seen[image]}")


def _fault(path: str) -> str | None:
    """What is wrong with a picture's header."""
    try:
        with open(path, "rb") as file:
            start = file.read(12)
            if not start:
                return "is an empty file"
            if is_heif(start):
                open_heif(start + file.read(), shorten(path))
                return None
        with Image.open(path):
            return None
    except Image.DecompressionBombError:
        return "is too large"
    except ImageError as error:
        return f"cannot be read: {error}"
    except (OSError, ValueError, SyntaxError) as error:
        return getattr(error, "strerror", None) or "is no picture that can be read"


def source_of(value: Any) -> TrainingSource:
    """A source from a path, or from a mapping of a recipe.

    Raises:
        PromptError: neither of them, or an unknown key.

    Example:
        >>> source_of({"path": "my.jsonl", "weight": 2}).weight
        2
    """
    if isinstance(value, (str, os.PathLike)):
        return TrainingSource(os.fspath(value))
    known = ("path", "weight", "images", "question")
    if not isinstance(value, Mapping) or "path" not in value or not set(value) <= set(known):
        raise PromptError(
            f"data is a path or a mapping with {', '.join(known)}; got {shorten(repr(value))}"
        )
    return TrainingSource(**value)
