"""Where presets come from: a folder, the name of a shipped one, or a handle such as `hf://`.

A preset is a folder in KerasHub's layout (`config.json`, `task.json`, `model.weights.h5`,
`preprocessor.json`, `assets/`). The shipped ones stand in `dl_techniques/presets/NAME`.

Files of a local preset are checked before anything is built, so that a download that was cut
short is one clear line and not a traceback from the middle of a reader.
"""

from __future__ import annotations

import difflib
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, cast

import h5py
import keras
import numpy as np

from dl_techniques.data.damage import (
    check_sizes,
    of_kind,
    one_line,
    safetensors_header,
    short,
)
from dl_techniques.data.folders import updated_folder
from dl_techniques.errors import DamagedFileError, DLTechniquesError, PresetError
from dl_techniques.models.presets.hub import fetch, is_hub_handle
from dl_techniques.models.presets.readers import VLM, Reader, find_reader, reader_of
from dl_techniques.models.presets.shipped import CONFIG_FILE, find_shipped, shipped_presets

TOKENIZER = "tokenizer"
PARTS = ("preprocessor.json", "image_converter.json", f"{TOKENIZER}.json", "task.weights.h5")
"""What a model's folder has beside its own files, if the model has such a part."""


def resolve_preset(source: str | Path) -> str:
    """Turns what the user named into what KerasHub loads.

    Args:
        source: A folder, a `.keras` file, the name of a shipped preset, or a handle with a
            scheme (`hf://org/name`, `kaggle://...`). A file or folder of a shipped name counts
            only if it is a preset itself.

    Returns:
        The path of a folder or file whose contents are whole (`hf://` is downloaded, or found in
        the cache), or a handle of another scheme unchanged.

    Raises:
        PresetError: nothing has that name, the folder is no preset, or a file is damaged.
    """
    if is_hub_handle(source):
        source = fetch(str(source))
    if "://" in str(source):
        return str(source)
    path = find_shipped(source) or Path(source).expanduser()
    if not path.exists():
        raise _unknown(str(source))
    check_preset(path)
    return str(path)


def _unknown(name: str) -> PresetError:
    """Nothing has that name: says what does, and which is nearest."""
    shipped = shipped_presets()
    near = difflib.get_close_matches(name.rstrip("/\\"), shipped, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    names = ", ".join(repr(n) for n in shipped) or "none"
    return PresetError(
        f"no preset {name!r}: {hint}give a shipped name ({names}), an existing folder, or "
        "hf://organisation/name"
    )


def check_preset(path: Path) -> None:
    """Checks that a local preset has its config and that no file is cut short.

    Raises:
        PresetError: naming the file, and what is wrong with it.
    """
    if path.is_file():
        _check_file(path)
        return
    if not (path / CONFIG_FILE).is_file():
        raise PresetError(
            f"{str(path)!r} is not a preset: it has no {CONFIG_FILE}; give a folder that "
            "save_to_preset() wrote"
        )
    for file in sorted(path.rglob("*")):
        if file.suffix in _CHECKS:
            _check_file(file)


def _check_file(file: Path) -> None:
    try:
        _CHECKS.get(file.suffix, _refuse)(file)
    except DLTechniquesError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = one_line(error, 120)
        raise DamagedFileError(
            f"{str(file)!r} is damaged or cut short ({reason}); download or write it again"
        ) from error


def _refuse(file: Path) -> None:
    raise ValueError(f"not a preset: expected a folder or a .keras file, got {file.suffix!r}")


def _check_json(file: Path) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(document, dict) and any(name in document for name in _KERAS_OBJECT):
        for name, kind in _KERAS_OBJECT.items():
            of_kind(document.get(name), kind, f"{file}: {name}")
        check_sizes(document["config"], f"{file}: config")


_KERAS_OBJECT = {"class_name": str, "registered_name": str, "config": dict}
"""What every object that Keras wrote has."""


def _check_h5(file: Path) -> None:
    # Every object is opened: a damaged table inside is found here, before a network is built.
    with h5py.File(file, "r") as store:
        store.visititems(lambda name, item: None)


def _check_safetensors(file: Path) -> None:
    safetensors_header(file)


def _check_keras(file: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            archive.getinfo("config.json")
    except zipfile.BadZipFile as error:
        raise ValueError(f"not a whole zip archive: {error}") from error


_CHECKS: dict[str, Callable[[Path], None]] = {
    ".json": _check_json,
    ".h5": _check_h5,
    ".safetensors": _check_safetensors,
    ".keras": _check_keras,
}


@contextmanager
def _one_line_errors(cls: type, source: str, asked: bool) -> Iterator[None]:
    """Turns a loader's own complaints about a preset into one line that names the files."""
    try:
        yield
    except DLTechniquesError:
        raise
    except _COMPLAINTS as error:
        # What the caller asked for besides may as well be what does not fit.
        kind = PresetError if asked else DamagedFileError
        raise kind(
            f"cannot load preset {source!r} ({' or '.join(_files_of(cls, source))}): "
            f"{one_line(error, 300)}"
        ) from error


_COMPLAINTS = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError)


def _files_of(cls: type, source: str) -> list[str]:
    """The files of a preset that say what an object of a class is."""
    own = getattr(cls, "config_file", None)
    names = [own] if isinstance(own, str) else [CONFIG_FILE, "task.json", *PARTS[:3]]
    return [name for name in names if (Path(source) / name).is_file()] or [source]


class PresetMixin:
    """Gives a KerasHub class a `from_preset` that knows the shipped presets.

    Put it before the KerasHub base: `class X(PresetMixin, keras_hub.models.Backbone)`.
    """

    @classmethod
    def from_preset(cls, preset: str | Path, *args: Any, **overrides: Any) -> Self:
        """Loads a model, or a part of one: our own preset, or a published FastVLM.

        Args:
            preset: A local folder, the name of a shipped preset (`"demo"`), a handle such as
                `hf://organisation/name`, or a `.keras` file that holds an object of this class.
                A folder is one that `save_to_preset` wrote, or FastVLM in Apple's
                (`llava_qwen2`) or Hugging Face's (`fast_vlm`) layout.
            *args: As the KerasHub base takes them (`load_weights`).
            **overrides: As the KerasHub base takes them, e.g. `dtype="bfloat16"`. For a published
                folder also `variant`, the size that it must hold, and what
                `dl_techniques.checkpoints.fast_vlm.load` takes.

        Raises:
            PresetError: unknown name (the nearest is named), damaged file, or a preset of
                another class.
            CheckpointError: a published folder whose tensors or configs do not fit.
        """
        source = resolve_preset(preset)
        reader = None if source.endswith(".keras") else _foreign_reader(cls, source, overrides)
        if reader is not None:
            if args:
                overrides["load_weights"] = args[0]
            return cast(
                Self, reader.load(cls, Path(source), overrides.pop("variant", None), overrides)
            )
        _refuse_variant(preset, overrides)
        with _one_line_errors(cls, source, bool(args or overrides)):
            if source.endswith(".keras"):
                return cls._from_keras_file(source, overrides)
            return super().from_preset(source, *args, **overrides)  # type: ignore[misc]

    def save_to_preset(self, preset_dir: str | Path, *args: Any, **options: Any) -> None:
        """Writes a folder that `from_preset` reads.

        It is written beside and takes its name when it is whole: killed or out of room, an older
        one is as it was. Files in it that are no part of a preset stay.

        Args:
            preset_dir: The folder; made if needed.
            *args: As the KerasHub base takes them (`max_shard_size` of a model).
            **options: As the KerasHub base takes them.

        Raises:
            PresetError: `preset_dir` is a file.
        """
        with updated_folder(preset_dir, part_of_preset) as folder:
            super().save_to_preset(str(folder), *args, **options)  # type: ignore[misc]

    def export_to_transformers(self, folder: str | Path, **options: Any) -> None:
        """Writes this object in the Hugging Face layout.

        A model is written whole, as `FastVlmForConditionalGeneration` opens it: weights, configs
        and, where there is a preprocessor, tokenizer, picture processor and chat template. A
        preprocessor, tokenizer or picture converter writes its own files of these.

        Args:
            folder: Where to; it appears whole or not at all, and replaces an older one.
            **options: Of `dl_techniques.checkpoints.fast_vlm.export.export`.

        Raises:
            VariantError: a tower or decoder that this layout cannot hold.
        """
        reader_of(VLM).write(self, Path(folder), **options)

    @classmethod
    def _from_keras_file(cls, file: str, overrides: dict[str, Any]) -> Self:
        if overrides:
            raise PresetError(f"a .keras file takes no overrides, got {sorted(overrides)}")
        model = keras.saving.load_model(file)
        if not isinstance(model, cls):
            raise PresetError(f"{file!r} holds a {type(model).__name__}, not a {cls.__name__}")
        return model


def part_of_preset(name: str, new: Path) -> bool:
    """Whether an older file belongs to what a new folder holds, and would be read with it.

    Args:
        name: path of the older file in its folder.
        new: the new folder, whole.
    """
    model = (new / "task.json").is_file()
    if name.startswith(f"assets/{TOKENIZER}/"):
        return model or (new / f"{TOKENIZER}.json").is_file()
    if name.startswith("model") and name.endswith((".weights.h5", ".weights.json")):
        return any(new.glob("model*.weights.*"))
    return model and name in PARTS


def _foreign_reader(cls: type, source: str, overrides: dict[str, Any]) -> Reader | None:
    """The reader of a local folder in a published layout, or None."""
    config = Path(source) / CONFIG_FILE
    if not config.is_file():
        return None
    document = json.loads(config.read_text(encoding="utf-8"))
    # Only Hugging Face's configs have this field; asking the readers costs their imports.
    if not isinstance(document, dict) or "model_type" not in document:
        return None
    reader = find_reader(VLM, cls, source, overrides.get("variant"))
    if reader is None:
        raise PresetError(
            f"{config}: model_type is {short(document['model_type'])}, of which {cls.__name__} "
            "loads nothing; expected llava_qwen2, fast_vlm or a preset of this package"
        )
    return reader


def _refuse_variant(preset: str | Path, overrides: dict[str, Any]) -> None:
    if overrides.get("variant") is not None:
        raise PresetError(
            f"{str(preset)!r} says itself what it holds; leave variant={overrides['variant']!r} out"
        )
    overrides.pop("variant", None)


def store_weights_as(folder: str | Path, dtype: str) -> None:
    """Rewrites the float weights of a saved preset in another float type, e.g. `"float16"`.

    Models load such files into variables of their own type: the size on disk halves, the model
    computes as before.

    Args:
        folder: A preset folder; its `*.weights.h5` files are replaced, each when it is whole.
        dtype: A NumPy float type.

    Raises:
        PresetError: a weight does not fit the range of `dtype`.
    """
    for file in sorted(Path(folder).glob("*.weights.h5")):
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
            smaller, packed = Path(scratch) / "smaller.h5", Path(scratch) / "packed.h5"
            with h5py.File(file, "r") as old, h5py.File(smaller, "w") as new:
                for name in old:
                    old.copy(name, new)
                for name in _float_datasets(new):
                    _replace_dataset(new, name, dtype)
            _repack(smaller, packed)
            packed.replace(file)


def _float_datasets(store: h5py.File) -> list[str]:
    names: list[str] = []
    store.visititems(
        lambda name, item: (
            names.append(name)
            if isinstance(item, h5py.Dataset) and item.dtype.kind == "f"
            else None
        )
    )
    return names


def _replace_dataset(store: h5py.File, name: str, dtype: str) -> None:
    with np.errstate(over="ignore"):  # said below, in words
        values = store[name][()].astype(dtype)
    if not np.all(np.isfinite(values)):
        raise PresetError(f"weight {name!r} does not fit {dtype}; keep it in a wider type")
    del store[name]
    store[name] = values


def _repack(source: Path, target: Path) -> None:
    """Copies a store into a fresh file, which leaves the deleted datasets' space behind."""
    with h5py.File(source, "r") as old, h5py.File(target, "w") as new:
        new.attrs.update(old.attrs)
        for name in old:
            old.copy(name, new)
