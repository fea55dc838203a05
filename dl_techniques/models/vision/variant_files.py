"""Where the variants' YAML files lie, and how one becomes a config."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from dl_techniques.errors import VariantError

Config = TypeVar("Config")


def variants_folder() -> Path:
    """In a wheel the folder lies inside the package, in a checkout beside it.

    Raises:
        VariantError: it is in neither place.
    """
    package = Path(__file__).resolve().parents[2]
    for folder in (package / "variants", package.parent / "variants"):
        if folder.is_dir():
            return folder
    raise VariantError(
        f"the folder of variant files is missing beside or inside {package.name}; "
        "reinstall dl-techniques"
    )


def read_fields(path: Path) -> dict[str, Any]:
    """The fields of one file.

    Raises:
        VariantError: it holds no mapping.
    """
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise VariantError(f"{path.name}: a variant file holds a mapping of field to value")
    return values


def config_from(cls: type[Config], values: Mapping[str, Any], source: str) -> Config:
    """A config dataclass from plain values; lists become tuples.

    Raises:
        VariantError: an unknown key (the nearest right one is named), or bad values.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            raise VariantError(f"{source}: unknown key {key!r}{hint}")
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return cls(**fields)


def named(variants: Mapping[str, Config], name: str) -> Config:
    """The config of a name.

    Raises:
        VariantError: there is no such variant (the nearest name is given).
    """
    if name not in variants:
        near = nearest(name, variants)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise VariantError(f"unknown variant {name!r}: {hint}known: {', '.join(variants)}")
    return variants[name]


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> list[str]:
    """The known name that is meant, or nothing.

    A network's own `name` is its family's in front of its variant's, so the known name at the end
    is meant first; only then the one that is spelled most alike.

    Example:
        >>> nearest("fast_vlm_nano", ["nano", "fastvit_sa36"]), nearest("tinny", ["tiny"])
        (['nano'], ['tiny'])
    """
    known = list(known)
    plain = str(name).lower().replace("-", "_")
    ends = [k for k in known if plain == k or plain.endswith(f"_{k}")]
    if ends:
        return [max(ends, key=len)]
    return difflib.get_close_matches(plain, known, n=1, cutoff=cutoff)


def check_overrides(cls: type, overrides: Mapping[str, Any], known: set[str]) -> None:
    """Refuses constructor arguments that do not exist.

    Raises:
        VariantError: names the argument and those that exist.
    """
    for key in overrides:
        if key not in known:
            raise VariantError(
                f"unknown argument {key!r} for {cls.__name__}; known: {sorted(known)}"
            )
