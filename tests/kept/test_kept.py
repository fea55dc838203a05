"""Files that earlier versions wrote load on every backend, with the numbers of then."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

# Registered with Keras by being imported.
import dl_techniques.compression
import dl_techniques.models.vision.mobile_one.model
import dl_techniques.models.vlm.fast_vlm  # noqa: F401
from tools.keep_files.inputs import read_inputs
from tools.keep_files.reading import (
    MANIFEST,
    difference,
    load,
    names_in,
    outputs_of,
    read_manifest,
    registered_names,
    unpack,
)

FOLDER = Path(__file__).parent
FILES = read_manifest(FOLDER)["files"]
LIMIT = 6_000_000
# Who wrote it is asked on one backend alone: each reads one file of every kind.
KEYS = [
    key if key.startswith("torch/") else pytest.param(key, marks=pytest.mark.once) for key in FILES
]


@pytest.fixture(scope="module")
def inputs() -> Any:
    return read_inputs(FOLDER)


def unpacked(key: str, into: Path) -> Path:
    """The kept file or folder as its writer left it."""
    unpack(FOLDER / f"{key}.tar.xz", into)
    return into / FILES[key]["path"]


def loaded(key: str, into: Path) -> tuple[Any, Path]:
    """The model of a kept file."""
    entry = FILES[key]
    path, base = unpacked(key, into), None
    if "base" in entry:
        base = unpacked(f"{entry['writer']}/{entry['base']}", into)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an optimizer's state that is not there
        return load(path, entry["class"], base), path


@pytest.mark.parametrize("key", KEYS)
def test_a_kept_file_loads_with_its_numbers(key: str, tmp_path: Path, inputs: Any) -> None:
    entry = FILES[key]
    model, path = loaded(key, tmp_path)
    with np.load(FOLDER / f"{key}.npz") as kept:
        now = outputs_of(model, inputs)
        assert set(kept.files) == set(now)
        off = {name: difference(now[name], kept[name]) for name in kept.files}
    assert {name: d for name, d in off.items() if d > entry["tolerance"]} == {}
    assert names_in(model, path) >= set(entry["registered"])


@pytest.mark.once
def test_every_registered_class_has_a_kept_file() -> None:
    kept = {name for entry in FILES.values() for name in entry["registered"]}
    missing = sorted(registered_names() - kept)
    assert not missing, f"{missing}: add them to tools/keep_files/kinds.py and keep a file"


@pytest.mark.once
def test_the_manifest_lists_what_is_there() -> None:
    there = {str(p.relative_to(FOLDER))[: -len(".tar.xz")] for p in FOLDER.glob("*/*.tar.xz")}
    assert there == set(FILES)
    assert (FOLDER / MANIFEST).is_file()
    size = sum(p.stat().st_size for p in FOLDER.rglob("*") if p.suffix in (".xz", ".npz"))
    assert size < LIMIT
    kinds = {key.split("/")[1] for key in FILES}
    assert {f"{b}/{k}" for b in ("torch", "jax", "tensorflow") for k in kinds} == there


@pytest.mark.once
def test_a_wrong_number_is_seen(tmp_path: Path, inputs: Any) -> None:
    key = f"{keras.backend.backend()}/branched"
    model, _ = loaded(key, tmp_path)
    kernel = model.head[-1].kernel
    kernel.assign(kernel * 1.001)
    with np.load(FOLDER / f"{key}.npz") as kept:
        assert difference(outputs_of(model, inputs)["outputs"], kept["outputs"]) > 1e-4
