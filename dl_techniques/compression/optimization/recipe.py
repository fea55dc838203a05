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
from dl_techniques.training.settings import check_keys, part_from, read_yaml

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
        check_keys(values, parts, source, CompressionError)
        made: dict[str, Any] = {}
        for name, fields in values.items():
            place = f"{source}: {name}"
            if fields is not None:
                made[name] = part_from(parts[name], fields, place, CompressionError)
        return cls(**made)

    @classmethod
    def from_file(cls, path: Path) -> Recipe:
        """A recipe from a YAML file.

        Raises:
            CompressionError: no such file, no YAML, an unknown key or a wrong value.
        """
        values = read_yaml(path, _PARTS, CompressionError)
        return cls.from_dict(values, path.name)


_PARTS: Mapping[str, type] = {
    "prune": Prune,
    "distil": Distil,
    "quantization_aware": QuantizationAware,
    "quantize": Quantize,
    "export": Export,
    "training": Training,
}
