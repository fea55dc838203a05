"""Loads kept files and computes what was kept of them."""

from __future__ import annotations

import importlib
import json
import pkgutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

import dl_techniques
from tools.keep_files.inputs import QUESTION, Array, taken_by

MANIFEST = "manifest.json"
PREFIX = "dl_techniques>"


def read_manifest(folder: Path) -> dict[str, Any]:
    """`files`: name of an archive -> what it holds; empty where nothing was kept yet."""
    file = folder / MANIFEST
    return json.loads(file.read_text("utf-8")) if file.is_file() else {"files": {}}


def unpack(archive: Path, into: Path) -> None:
    """Unpacks one kept file or folder."""
    with tarfile.open(archive, "r:xz") as file:
        file.extractall(into, filter="data")


def load(path: Path, class_name: str, base: Path | None = None) -> Any:
    """A model from a `.keras` file, a preset folder, or LoRA weights beside their base."""
    if path.name.endswith(".lora.h5"):
        assert base is not None, f"{path} needs the model that it belongs to"
        model = load(base, class_name)
        model.backbone.load_lora_weights(str(path))
        return model
    if path.suffix == ".keras":
        return keras.models.load_model(path)
    return getattr(dl_techniques, class_name).from_preset(path)


def outputs_of(model: Any, inputs: dict[str, Array]) -> dict[str, Array]:
    """What a model makes of the inputs.

    Returns:
        `outputs`, and where a model takes prompts, what its preprocessor makes of a question
        about the photo: `prompt_token_ids`, `prompt_images`, ...
    """
    outputs = model(taken_by(model, inputs), training=False)
    made = {"outputs": keras.ops.convert_to_numpy(outputs)}
    preprocessor = getattr(model, "preprocessor", None)
    if preprocessor is not None:
        asked = {"prompts": [QUESTION], "images": [[inputs["photo"]]]}
        ready = preprocessor.generate_preprocess(asked)
        made |= {f"prompt_{k}": keras.ops.convert_to_numpy(v) for k, v in ready.items()}
    return made


def difference(now: Array, kept: Array) -> float:
    """max|now - kept| over max|kept|; infinite where the shapes differ."""
    if now.shape != kept.shape or not np.isfinite(now).all():
        return float("inf")
    wide = kept.astype("float64")
    return float(np.abs(now.astype("float64") - wide).max() / max(np.abs(wide).max(), 1e-30))


def import_everything() -> None:
    """Imports every module of the package, which registers its classes."""
    for module in pkgutil.walk_packages(dl_techniques.__path__, "dl_techniques."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def registered_names() -> set[str]:
    """Everything that the package registers with Keras, by name."""
    import_everything()
    known = keras.saving.get_custom_objects()
    return {name.removeprefix(PREFIX) for name in known if name.startswith(PREFIX)}


def names_in(model: Any, path: Path) -> set[str]:
    """The registered classes that a file names, and those of the layers that it makes."""
    preprocessor = getattr(model, "preprocessor", None)
    parts = [*model._flatten_layers(), preprocessor]
    parts += [getattr(preprocessor, name, None) for name in ("tokenizer", "image_converter")]
    held = {keras.saving.get_registered_name(type(part)) for part in parts}
    found = held.union(*(_registered(document) for document in _documents(path)))
    return {name.removeprefix(PREFIX) for name in found if name.startswith(PREFIX)}


def named_optimizer(path: Path) -> str | None:
    """Module and class of the optimizer in a `.keras` file: some are of one backend alone."""
    for document in _documents(path) if path.suffix == ".keras" else ():
        optimizer = (document.get("compile_config") or {}).get("optimizer")
        if optimizer is not None:
            return f"{optimizer['module']}.{optimizer['class_name']}"
    return None


def _documents(path: Path) -> Iterator[Any]:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as file:
            yield json.loads(file.read("config.json"))
    elif path.is_dir():
        for file in path.glob("*.json"):
            yield json.loads(file.read_text("utf-8"))


def _registered(document: Any) -> set[str]:
    if isinstance(document, dict):
        is_function = document.get("class_name") == "function"
        name = document.get("config" if is_function else "registered_name")
        return {str(name)}.union(*(_registered(value) for value in document.values()))
    if isinstance(document, list):
        return set().union(*(_registered(value) for value in document))
    return set()
