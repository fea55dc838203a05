"""Writes the kept files of one backend: `KERAS_BACKEND=torch python -m tools.keep_files`."""

from __future__ import annotations

import argparse
import json
import os
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dl_techniques.version import __version__
from tools.keep_files.inputs import INPUTS_FILE, Array, make_inputs, read_inputs
from tools.keep_files.kinds import KINDS, Kind
from tools.keep_files.reading import (
    MANIFEST,
    difference,
    load,
    named_optimizer,
    names_in,
    outputs_of,
    read_manifest,
)


def keep(folder: Path, names: list[str], commit: str) -> None:
    """Writes what is missing of the backend in use, each file complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / INPUTS_FILE).is_file():
        np.savez_compressed(folder / INPUTS_FILE, **make_inputs())
    inputs = read_inputs(folder)
    for name in names:
        archive = folder / keras.backend.backend() / f"{name}.tar.xz"
        if archive.is_file():
            print(f"{archive} is kept already")
            continue
        archive.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
            entry = _keep_one(KINDS[name], Path(scratch), inputs)
            os.replace(Path(scratch) / "outputs.npz", archive.parent / f"{name}.npz")
            os.replace(Path(scratch) / "packed", archive)
        _note(folder, f"{keras.backend.backend()}/{name}", {"kind": name, **entry}, commit)


def _keep_one(kind: Kind, scratch: Path, inputs: dict[str, Array]) -> dict[str, Any]:
    """Saves, loads again, compares and packs."""
    keras.utils.set_random_seed(27)
    model = kind.make()
    path = scratch / kind.name
    kind.save(model, path)
    outputs = outputs_of(model, inputs)
    base = None
    if kind.base is not None:
        base = scratch / "base"
        KINDS[kind.base].save(KINDS[kind.base].make(), base)
    loaded = load(path, type(model).__name__, base)
    for key, value in outputs_of(loaded, inputs).items():
        off = difference(value, outputs[key])
        if off > kind.tolerance:
            raise SystemExit(f"{kind.name}: {key} of the loaded model is off by {off:.1e}")
    np.savez_compressed(scratch / "outputs.npz", **outputs)
    with tarfile.open(scratch / "packed", "w:xz") as file:
        file.add(path, kind.name, filter=_anonymous)
    return _entry(kind, model, path)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _entry(kind: Kind, model: Any, path: Path) -> dict[str, Any]:
    entry = {
        "path": kind.name,
        "writer": keras.backend.backend(),
        "class": type(model).__name__,
        "registered": sorted(names_in(model, path)),
        "tolerance": kind.tolerance,
    }
    optimizer = named_optimizer(path)
    if optimizer is not None:
        entry["optimizer"] = optimizer
    if kind.base is not None:
        entry["base"] = kind.base
    return entry


def _note(folder: Path, key: str, entry: dict[str, Any], commit: str) -> None:
    manifest = read_manifest(folder)
    backend = keras.backend.backend()
    packages = ["keras", "keras-hub", "numpy", "h5py", backend]
    versions = {"dl_techniques": __version__, "commit": commit}
    versions |= {name: version(name) for name in packages}
    manifest["files"][key] = {**entry, "versions": versions}
    manifest["files"] = dict(sorted(manifest["files"].items()))
    text = json.dumps(manifest, indent=1) + "\n"
    partial = folder / f".{MANIFEST}.partial"
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, folder / MANIFEST)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("tests/kept"), help="where they are kept")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--commit", required=True, help="the commit that writes them")
    options = parser.parse_args(arguments)
    keep(options.out, options.kinds, options.commit)


if __name__ == "__main__":
    main()
