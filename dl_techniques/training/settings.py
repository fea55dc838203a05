"""Plain values, as YAML gives them, become settings; what is wrong is told in one line."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dl_techniques.errors import DLTechniquesError, TrainingError

Part = TypeVar("Part")
_KINDS: Mapping[str, tuple[type, ...]] = {
    "float": (int, float),
    "int": (int,),
    "bool": (bool,),
    "str": (str,),
    "float | None": (int, float, type(None)),
    "int | None": (int, type(None)),
    "str | None": (str, type(None)),
    "tuple[str, ...]": (tuple,),
    "tuple[int, ...]": (tuple,),
    "Mapping[str, float]": (Mapping,),
    "Mapping[str, Any]": (Mapping,),
}


@dataclass(frozen=True)
class Training:
    """How all steps train.

    Attributes:
        batch_size: pictures a step.
        learning_rate: the highest; it warms up and falls along a cosine.
        augment: shift and mirror the pictures.
        seed: of order, augmentation and fresh weights.
    """

    batch_size: int = 64
    learning_rate: float = 1e-3
    augment: bool = True
    seed: int = 0


def check_keys(
    values: Mapping[Any, Any],
    known: Collection[str],
    place: str,
    error: type[DLTechniquesError] = TrainingError,
) -> None:
    """Refuses keys that do not exist; the nearest right one is named.

    Args:
        values: what was read.
        known: the keys that there are.
        place: of the values, for the message.
        error: what is raised.
    """
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise error(f"{place}: unknown key {key!r}; {hint}")


def part_from(
    cls: type[Part],
    values: Any,
    place: str,
    error: type[DLTechniquesError] = TrainingError,
    **made: Any,
) -> Part:
    """A dataclass from a mapping; lists become tuples, keys and types are checked.

    Args:
        cls: of the part.
        values: what was read.
        place: of the part, for messages.
        error: what is raised.
        **made: further fields, ready.

    Example:
        >>> part_from(Training, {"batch_size": 8}, "recipe: training").batch_size
        8
    """
    if not isinstance(values, Mapping):
        raise error(f"{place} must be a mapping, got {values!r}")
    fields = {f.name: str(f.type) for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    check_keys(values, list(fields), place, error)
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    for name, value in plain.items():
        kinds = _KINDS[fields[name]]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise error(f"{place}.{name} must be {fields[name]}, got {value!r}")
    return cls(**made, **plain)


def read_yaml(
    path: Path, known: Collection[str], error: type[DLTechniquesError] = TrainingError
) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Args:
        path: of the file.
        known: its keys, for the message.
        error: what is raised if there is no such file, no YAML or no mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as reason:
        told = getattr(reason, "strerror", None) or reason
        raise error(f"{path} cannot be read: {told}") from reason
    except yaml.YAMLError as reason:
        raise error(f"{path} is no YAML: {' '.join(str(reason).split())}") from reason
    if not isinstance(values, dict):
        raise error(f"{path} must hold a mapping with {', '.join(known)}")
    return values
