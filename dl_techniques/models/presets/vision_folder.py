"""Reading and writing a vision network as a folder: `config.json` and `model.weights.h5`.

A preset is the network alone: what `compile()` added (loss, optimizer and its state) stays out.
"""

from __future__ import annotations

import difflib
import inspect
import json
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import keras

from dl_techniques.data.damage import check_sizes
from dl_techniques.data.folders import updated_folder
from dl_techniques.errors import DamagedFileError, PresetError, VariantError
from dl_techniques.models.presets.encoder_folder import (
    WEIGHT_FILES,
    encoder_document,
    encoder_weights,
)
from dl_techniques.models.presets.shipped import CONFIG_FILE, find_shipped

WEIGHTS_FILE = "model.weights.h5"
_UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


def is_own(source: Path) -> bool:
    """Whether a source claims to be one of our presets, whole or not."""
    if source.suffix == ".keras" or (source / WEIGHTS_FILE).is_file():
        return True
    try:
        document = json.loads((source / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # no folder, no config or a broken one: nobody's claim
        return False
    return isinstance(document, dict) and "class_name" in document


def save(model: keras.Model, folder: str | Path) -> None:
    """Writes both files beside and moves them into place together; other files stay."""
    model = model if getattr(model, "optimizer", None) is None else _without_optimizer(model)
    config = json.dumps(keras.saving.serialize_keras_object(model), indent=2)
    with updated_folder(folder) as place:
        model.save_weights(place / WEIGHTS_FILE)
        (place / CONFIG_FILE).write_text(config, encoding="utf-8")


def _without_optimizer(model: keras.Model) -> Any:
    plain = type(model).from_config(model.get_config())
    plain.set_weights(model.get_weights())
    return plain


def find(source: str | Path) -> Path:
    """What a user named: a preset inside the package, or a path."""
    return find_shipped(source) or Path(source)


def load(cls: type, source: str | Path, overrides: dict[str, Any]) -> Any:
    """Reads a preset folder or a `.keras` file; of a vision-language model's folder the encoder.

    Raises:
        PresetError: nothing there, damaged, or of another class.
    """
    source = Path(source)
    if source.suffix == ".keras":
        return _load_archive(cls, source, overrides)
    config_path, weights_path = source / CONFIG_FILE, source / WEIGHTS_FILE
    for path in (config_path, weights_path):
        if not path.is_file() and not (path is weights_path and any(source.glob(WEIGHT_FILES))):
            raise PresetError(
                f"{source}: no {path.name} there; give a folder that save_to_preset wrote, or a "
                ".keras file"
            )
    model, whole = _build(cls, config_path, overrides)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            file = weights_path
            if whole is not None:
                file = encoder_weights(source, scratch, whole, cls.__name__)
            model.load_weights(file)
            _refuse_leftovers(model, file)
    except _UNREADABLE as error:
        if overrides and isinstance(error, ValueError):
            raise PresetError(
                f"{weights_path}: does not fit the network with {overrides}; "
                f"load it as it was saved ({_one_line(error)})"
            ) from error
        raise _damaged(weights_path, error) from error
    return model


def _refuse_leftovers(model: keras.Model, path: Path) -> None:
    """Keras ignores arrays that the network has no place for; here they are an error."""
    arrays: list[str] = []
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: arrays.append(name) if isinstance(item, h5py.Dataset) else None
        )
    found = sum(not name.startswith("optimizer/") for name in arrays)
    if found != len(model.weights):
        raise ValueError(f"it holds {found} arrays for a network of {len(model.weights)}")


def _build(cls: type, path: Path, overrides: dict[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    """The network, and the config of the vision-language model that it is a part of."""
    try:
        whole = json.loads(path.read_text(encoding="utf-8"))
        document = encoder_document(whole, cls.__name__)
        found, config = document["class_name"], dict(document["config"])
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    check_sizes(config, f"{path}: config")
    if found != cls.__name__:
        part = "" if document is whole else " as the encoder of a vision-language model"
        raise PresetError(f"{path}: holds a {found!s:.60}{part}, expected a {cls.__name__}")
    arguments = inspect.signature(cls).parameters  # a saved config may be older than some
    for key in overrides:
        if key not in config and key not in arguments:
            near = difflib.get_close_matches(key, config, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {sorted(config)}"
            raise PresetError(f"{path}: {cls.__name__} has no argument {key!r}{hint}")
    try:
        network = keras.saving.deserialize_keras_object(
            {**document, "config": {**config, **overrides}}
        )
        return network, None if document is whole else whole
    except _UNREADABLE as error:
        if overrides and isinstance(error, VariantError):
            raise  # the file is whole, what was asked for does not go with it
        raise _damaged(path, error) from error


def _load_archive(cls: type, path: Path, overrides: dict[str, Any]) -> Any:
    if overrides:
        raise PresetError(f"{path.name}: a .keras file takes no overrides, got {sorted(overrides)}")
    if not path.is_file():
        raise PresetError(f"{path}: no such file")
    try:
        model = keras.saving.load_model(path)
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    if not isinstance(model, cls):
        raise PresetError(f"{path}: holds a {type(model).__name__}, expected a {cls.__name__}")
    return model


def _damaged(path: Path, error: Exception) -> DamagedFileError:
    return DamagedFileError(
        f"{path}: cannot be read ({_one_line(error)}); it may be cut short, get it again"
    )


def _one_line(error: Exception) -> str:
    """The innermost reason that Keras gives, shortened."""
    reason = str(error).rpartition("Exception encountered:")[2]
    return " ".join(reason.split())[:200]
