"""The presets inside the package, and which of a name and a path a user means.

A shipped name wins over a file or folder of the same name that is no preset itself.
"""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path

CONFIG_FILE = "config.json"
_KERAS_OBJECT = ("class_name", "registered_name")
_WEIGHTS = (".h5", ".safetensors", ".bin")


def shipped_presets() -> dict[str, Path]:
    """Names of the presets inside the package, and their folders."""
    root = Path(str(importlib.resources.files("dl_techniques"))) / "presets"
    if not root.is_dir():
        return {}
    return {p.name: p for p in sorted(root.iterdir()) if (p / CONFIG_FILE).is_file()}


def find_shipped(source: str | Path) -> Path | None:
    """The folder of a shipped preset, where a source means one; `"demo/"` does as well."""
    folder = shipped_presets().get(str(source).rstrip("/\\"))
    path = Path(source).expanduser()
    return None if folder is None or (path.exists() and claims_to_be_preset(path)) else folder


def claims_to_be_preset(path: Path) -> bool:
    """Whether a folder says that it holds a model, ours or a published one; it may be damaged."""
    if not (path / CONFIG_FILE).is_file():
        return False
    try:
        document = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    except ValueError:
        return any(file.suffix in _WEIGHTS for file in path.iterdir())
    return isinstance(document, dict) and not {*_KERAS_OBJECT, "model_type"}.isdisjoint(document)
