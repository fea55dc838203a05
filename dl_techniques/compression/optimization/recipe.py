"""What `fastvlm optimize` is told to do, read from YAML.

    prune:              {fraction: 0.5, targets: [hidden], epochs: 2}
    distil:             {temperature: 4, alpha: 0.5, epochs: 2}
    quantization_aware: {epochs: 1}
    quantize:           {precision: int8}
    export:             {image_size: 224}
    training:           {batch_size: 64, learning_rate: 0.001}

Every part may be left out; they are done in this order.

Example:
    >>> from dl_techniques.compression.optimization.recipe import Recipe
    >>> Recipe.from_dict({"quantize": {"precision": "int8"}}).trains
    False
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dl_techniques.compression.optimization.recipe_parts import (
    Distil,
    Export,
    Prune,
    QuantizationAware,
    Quantize,
    Training,
)
from dl_techniques.errors import CompressionError
from dl_techniques.export.litert.litert_precision import BLOCK_SIZES, PRECISIONS

FORMATS = ("litert", "litertlm")


@dataclass(frozen=True)
class Recipe:
    """The steps; None where a step is left out.

    Raises:
        CompressionError: steps or numbers that cannot be.
    """

    prune: Prune | None = None
    distil: Distil | None = None
    quantization_aware: QuantizationAware | None = None
    quantize: Quantize | None = None
    export: Export = field(default_factory=Export)
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        """Checks what the steps themselves do not."""
        for place, wrong, expected in self._wrong():
            if wrong:
                raise CompressionError(f"recipe: {place} must be {expected}")

    def _wrong(self) -> list[tuple[str, bool, str]]:
        aware, precision = self.quantization_aware is not None, self.precision
        steps = [s for s in (self.prune, self.distil, self.quantization_aware) if s is not None]
        size = self.quantize.block_size if self.quantize else None
        return [
            (
                "epochs",
                any(s.epochs < 1 for s in steps),
                "at least 1; leave the step out otherwise",
            ),
            ("training.batch_size", self.training.batch_size < 1, "at least 1"),
            ("training.learning_rate", not self.training.learning_rate > 0, "above 0"),
            ("quantize.precision", precision not in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            ("quantize.block_size", size not in (None, *BLOCK_SIZES), f"one of {BLOCK_SIZES}"),
            ("export.format", self.export.format not in FORMATS, f"one of {', '.join(FORMATS)}"),
            (
                "quantize.precision",
                aware and self.quantize is not None and precision != "int8_static",
                "int8_static after quantization_aware, or the part be left out",
            ),
            (
                "distil.student",
                bool(self.prune and self.distil and self.distil.student),
                "left out where the student is the pruned network",
            ),
            (
                "distil.student",
                bool(self.distil and not self.prune and not self.distil.student),
                "the name of a variant, where nothing is pruned",
            ),
        ]

    @property
    def trains(self) -> bool:
        """Whether a step needs labelled pictures to train on."""
        return any((self.prune, self.distil, self.quantization_aware))

    @property
    def precision(self) -> str:
        """Of the file."""
        if self.quantize is not None:
            return self.quantize.precision
        return "int8_static" if self.quantization_aware is not None else "float32"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "recipe") -> Recipe:
        """A recipe from plain values.

        Raises:
            CompressionError: an unknown key (the nearest right one is named) or a wrong value.
        """
        parts = {f.name: _PARTS[f.name] for f in dataclasses.fields(cls)}
        _check_keys(values, list(parts), source)
        made = {}
        for name, fields in values.items():
            place = f"{source}: {name}"
            if fields is not None:
                made[name] = _part(parts[name], fields, place)
        return cls(**made)

    @classmethod
    def from_file(cls, path: Path) -> Recipe:
        """A recipe from a YAML file.

        Raises:
            CompressionError: no such file, no YAML, an unknown key or a wrong value.
        """
        import yaml

        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CompressionError(f"{path} cannot be read: {reason}") from error
        except yaml.YAMLError as error:
            raise CompressionError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
        if not isinstance(values, dict):
            raise CompressionError(f"{path} must hold a mapping with {', '.join(_PARTS)}")
        return cls.from_dict(values, path.name)


_PARTS: Mapping[str, type] = {
    "prune": Prune,
    "distil": Distil,
    "quantization_aware": QuantizationAware,
    "quantize": Quantize,
    "export": Export,
    "training": Training,
}
_KINDS: Mapping[str, tuple[type, ...]] = {
    "float": (int, float),
    "int": (int,),
    "bool": (bool,),
    "str": (str,),
    "int | None": (int, type(None)),
    "str | None": (str, type(None)),
    "tuple[str, ...]": (tuple,),
}


def _check_keys(values: Mapping[Any, Any], known: list[str], place: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise CompressionError(f"{place}: unknown key {key!r}; {hint}")


def _part(cls: type, values: Any, place: str) -> Any:
    """One part from its mapping; lists become tuples, types are checked."""
    if not isinstance(values, Mapping):
        raise CompressionError(f"{place} must be a mapping, got {values!r}")
    fields = {f.name: str(f.type) for f in dataclasses.fields(cls)}
    _check_keys(values, list(fields), place)
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    for name, value in plain.items():
        kinds = _KINDS[fields[name]]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise CompressionError(f"{place}.{name} must be {fields[name]}, got {value!r}")
    return cls(**plain)
