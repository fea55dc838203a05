"""Reading and writing a vision network as a folder: `config.json` and `model.weights.h5`."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import keras

from dl_techniques.errors import PresetError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.weights.h5"


def save(model: Any, folder: str | Path) -> None:
    """Writes both files under temporary names and moves them into place."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(keras.saving.serialize_keras_object(model), indent=2)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
        weights, text = Path(scratch) / WEIGHTS_FILE, Path(scratch) / CONFIG_FILE
        model.save_weights(weights)
        text.write_text(config, encoding="utf-8")
        os.replace(weights, folder / WEIGHTS_FILE)
        os.replace(text, folder / CONFIG_FILE)


def load(cls: type, source: str | Path, overrides: dict[str, Any]) -> Any:
    """Reads a preset folder or a `.keras` file.

    Raises:
        PresetError: nothing there, damaged, or of another class.
    """
    source = Path(source)
    if source.suffix == ".keras":
        return _load_archive(cls, source, overrides)
    config_path, weights_path = source / CONFIG_FILE, source / WEIGHTS_FILE
    for path in (config_path, weights_path):
        if not path.is_file():
            raise PresetError(
                f"{source}: no {path.name} there; give a folder that save_to_preset wrote, or a "
                ".keras file"
            )
    model = _build(cls, config_path, overrides)
    try:
        model.load_weights(weights_path)
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(weights_path, error) from error
    return model


def _build(cls: type, path: Path, overrides: dict[str, Any]) -> Any:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = document["class_name"]
        if found == cls.__name__:
            document["config"].update(overrides)
            return keras.saving.deserialize_keras_object(document)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    raise PresetError(f"{path}: holds a {found}, expected a {cls.__name__}")


def _load_archive(cls: type, path: Path, overrides: dict[str, Any]) -> Any:
    if overrides:
        raise PresetError(f"{path.name}: a .keras file takes no overrides, got {sorted(overrides)}")
    if not path.is_file():
        raise PresetError(f"{path}: no such file")
    try:
        model = keras.saving.load_model(path)
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error
    if not isinstance(model, cls):
        raise PresetError(f"{path}: holds a {type(model).__name__}, expected a {cls.__name__}")
    return model


def _damaged(path: Path, error: Exception) -> PresetError:
    detail = " ".join(str(error).split())[:200]
    return PresetError(f"{path}: cannot be read ({detail}); it may be cut short, get it again")
