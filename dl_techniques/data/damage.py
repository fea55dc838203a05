"""What is said when the content of a file is not what it should be."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

from dl_techniques.errors import (
    CheckpointError,
    DamagedFileError,
    DLTechniquesError,
    VariantError,
)

LARGEST = 10**9
"""No side, width or number of layers of a real file is larger."""
_LIBRARIES = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)
"""What libraries raise over content that they did not expect."""


def short(value: Any) -> str:
    """A value for messages: its `repr`, at most 80 characters of it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def one_line(error: BaseException, most: int = 200) -> str:
    """The words of an error on one line, shortened."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[: most - 3]}..."


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Names the file whose content is used in the block in every error about it.

    Args:
        path: the file, or the folder whose files are used together.

    Raises:
        CheckpointError: with the path in front of what the block raised about the content.
        DamagedFileError: a library stumbled over the content.

    Example:
        >>> with reading("config.json"):
        ...     int("seven")
        Traceback (most recent call last):
            ...
        dl_techniques.errors.DamagedFileError: config.json: cannot be read ...
    """
    try:
        with naming(path):
            yield
    except DLTechniquesError:
        raise
    except _LIBRARIES as error:
        raise DamagedFileError(
            f"{path}: cannot be read ({one_line(error)}); it is damaged or was changed: get it "
            "again"
        ) from error


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Names a file in the errors of this package about its content; others pass.

    Args:
        path: the file, or the folder whose files are used together.

    Raises:
        CheckpointError: with the path in front of what the block raised.
    """
    try:
        yield
    except CheckpointError as error:
        if str(path) in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    except VariantError as error:  # the file asks for a network that there is not
        raise CheckpointError(f"{path}: {error}") from error


def whole_number(value: Any, what: str, least: int = 1, most: int = LARGEST) -> int:
    """A size or a count that a file says.

    Args:
        value: as it stands in the file; `2.0` counts as 2.
        what: file and field, for the message.
        least: smallest that makes sense.
        most: largest.

    Raises:
        DamagedFileError: something else.

    Example:
        >>> whole_number(3, "config.json: num_layers")
        3
    """
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value != int(value) or not least <= value <= most:
        raise DamagedFileError(
            f"{what} is {short(value)}, expected a whole number from {least} to {most}; the file "
            "is damaged: get it again"
        )
    return int(value)


def real_number(value: Any, what: str, least: float = 0.0) -> float:
    """A finite number that a file says.

    Args:
        value: as it stands in the file.
        what: file and field, for the message.
        least: smallest that makes sense.

    Raises:
        DamagedFileError: something else.
    """
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value < least:
        raise DamagedFileError(
            f"{what} is {short(value)}, expected a number of at least {least:g}; the file is "
            "damaged: get it again"
        )
    return float(value)


def of_kind(value: Any, kind: type, what: str) -> Any:
    """A value that must be text (`str`), an object (`dict`), a list or true or false (`bool`).

    Raises:
        DamagedFileError: something else.
    """
    if not isinstance(value, _ACCEPTED[kind]):
        words = {str: "text", dict: "an object", list: "a list", bool: "true or false"}
        raise DamagedFileError(
            f"{what} is {short(value)}, expected {words[kind]}; the file is damaged: get it again"
        )
    return value


def check_sizes(value: Any, what: str) -> None:
    """Checks that no number in a config is so large that building it would never end.

    Args:
        value: the config, or a part of it.
        what: file and field, for the message.

    Raises:
        DamagedFileError: naming the field.
    """
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    for name, part in parts:
        if isinstance(part, (dict, list)):
            check_sizes(part, f"{what}.{name}")
        elif type(part) is int and abs(part) > LARGEST and name != "seed":
            whole_number(part, f"{what}.{name}", -LARGEST)


_ACCEPTED: dict[type, Any] = {str: str, bool: bool, dict: Mapping, list: (list, tuple)}


def safetensors_header(path: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """Where the data of a `.safetensors` file begins, and what it says of each array.

    Returns:
        Bytes in front of the data, and name -> `dtype` (str), `shape` (list of int) and
        `data_offsets` (two int inside the file), all of them checked.

    Raises:
        DamagedFileError: cut short, or no such file; the array and the field are named.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise DamagedFileError(
                f"{path}: {size} bytes, shorter than its own header; it was cut short or is no "
                "safetensors file: download it again"
            )
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise DamagedFileError(
                f"{path}: no safetensors file ({one_line(error)}); download it again"
            ) from error
    entries = {n: e for n, e in of_kind(header, dict, f"{path}: the header").items() if n != _META}
    for name, entry in entries.items():
        _check_entry(entry, f"{path}: {short(name)}")
    expected = 8 + length + max((e["data_offsets"][1] for e in entries.values()), default=0)
    if size != expected:
        raise DamagedFileError(
            f"{path}: {size} bytes where its header promises {expected}; it was cut short: "
            "download it again"
        )
    return 8 + length, entries


_META = "__metadata__"


def _check_entry(entry: Any, what: str) -> None:
    """One array of a header; that sizes and shape belong together is the reader's business."""
    of_kind(entry, dict, what)
    for field, kind in (("dtype", str), ("shape", list), ("data_offsets", list)):
        if field not in entry:
            raise DamagedFileError(f"{what} has no {field!r}; the file is damaged: get it again")
        of_kind(entry[field], kind, f"{what}: {field}")
    for side in entry["shape"]:
        whole_number(side, f"{what}: shape", 0)
    places = entry["data_offsets"]
    ordered = len(places) == 2 and all(type(place) is int for place in places)
    if not ordered or not 0 <= places[0] <= places[1]:
        raise DamagedFileError(
            f"{what}: data_offsets is {short(places)}, expected two places in the file in their "
            "order; the file is damaged: get it again"
        )
