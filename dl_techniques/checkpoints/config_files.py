"""The JSON files beside weights, and fields that must be in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dl_techniques.data.damage import (
    LARGEST,
    of_kind,
    one_line,
    real_number,
    short,
    whole_number,
)
from dl_techniques.errors import CheckpointError

CONFIG = "config.json"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: not there, cut short, or no object.
    """
    if not path.is_file():
        raise CheckpointError(f"{path.parent}: no {path.name} there; download it into this folder")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: no JSON ({one_line(error)}); download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected an object, found {type(content).__name__}")
    return content


def read_json_if_there(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or an empty one where there is no file."""
    return read_json(path) if path.is_file() else {}


class Fields:
    """Fields of a config, with errors that name the field and the file.

    Args:
        values: the fields.
        source: what errors call them, e.g. `config.json: vision_config`.
    """

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values = values
        self.source = source

    def needed(self, name: str) -> Any:
        """A field that must be there.

        Raises:
            CheckpointError: it is absent or null.
        """
        if self.values.get(name) is None:
            raise CheckpointError(f"{self.source} has no {name!r}; download the file again")
        return self.values[name]

    def part(self, name: str) -> Fields:
        """A field that is an object itself."""
        value = of_kind(self.needed(name), dict, f"{self.source}: {name}")
        return Fields(value, f"{self.source}: {name}")

    def whole(self, name: str, least: int = 1, most: int = LARGEST) -> int | None:
        """A size or count, or None where there is none.

        Raises:
            DamagedFileError: it is something else.
        """
        value = self.values.get(name)
        if value is None:
            return None
        return whole_number(value, f"{self.source}: {name}", least, most)

    def real(self, name: str, least: float = 0.0) -> float | None:
        """A finite number, or None where there is none.

        Raises:
            DamagedFileError: it is something else.
        """
        value = self.values.get(name)
        return None if value is None else real_number(value, f"{self.source}: {name}", least)

    def expect(self, name: str, *allowed: Any) -> Any:
        """A field that may be absent, and otherwise has one of the values that are supported.

        Raises:
            CheckpointError: it has another one.
        """
        value = self.values.get(name)
        if value is not None and value not in allowed:
            choices = " or ".join(repr(a) for a in allowed)
            raise CheckpointError(
                f"{self.source}: {name}={short(value)} is not supported, expected {choices}"
            )
        return value
