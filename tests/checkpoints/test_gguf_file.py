"""GGUF files written with `gguf`: arrays, settings, and what is wrong with damaged ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl_techniques.checkpoints.gguf_file import GGUFStore
from dl_techniques.checkpoints.tensor_files import open_tensors
from dl_techniques.errors import CheckpointError, MissingExtraError

pytestmark = pytest.mark.once

gguf = pytest.importorskip("gguf")


def write(path: Path, arrays: dict[str, np.ndarray], quantized: Any = None) -> Path:
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_uint32("llama.block_count", 3)
    writer.add_array("some.words", ["a", "b"])
    for name, array in arrays.items():
        if quantized is None:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_arrays_and_settings_come_back(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = {
        "full": rng.normal(size=(3, 5)).astype("float32"),
        "half": rng.normal(size=(2, 4)).astype("float16"),
        "row": rng.normal(size=7).astype("float32"),
    }
    with open_tensors(write(tmp_path / "a.gguf", arrays)) as store:
        assert isinstance(store, GGUFStore)
        assert {k: v.shape for k, v in store.items()} == {k: v.shape for k, v in arrays.items()}
        for name, array in arrays.items():
            read = store.read(name)
            assert read.dtype == np.float32 and store[name].nbytes == read.nbytes
            np.testing.assert_array_equal(read, array.astype("float32"))
        assert store.metadata["llama.block_count"] == 3
        assert store.metadata["some.words"] == ["a", "b"]
        with pytest.raises(CheckpointError, match="'no.such'"):
            store.needed("no.such")


@pytest.mark.parametrize(("kind", "error"), [("Q8_0", 0.02), ("Q4_1", 0.2)])
def test_quantized_arrays_are_near(
    kind: str, error: float, tmp_path: Path, rng: np.random.Generator
) -> None:
    array = rng.normal(size=(4, 64)).astype("float32")
    path = write(tmp_path / "a.gguf", {"w": array}, gguf.GGMLQuantizationType[kind])
    with GGUFStore(path) as store:
        assert store["w"].shape == (4, 64)
        difference = np.abs(store.read("w") - array).max()
    assert 0 < difference < error * np.abs(array).max()


def test_an_array_outlives_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", {"w": np.arange(6, dtype="float32").reshape(2, 3)})
    with GGUFStore(path) as store:
        array = store.read("w")
    assert array.flags.owndata or array.base.flags.owndata
    assert array.sum() == 15


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", {"w": np.ones((64, 64), "float32")})
    content = path.read_bytes()
    for size in (len(content) - 1000, 60):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match="cut short") as caught:
            GGUFStore(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"PK\x03\x04" + content)
    with pytest.raises(CheckpointError, match="no GGUF file"):
        GGUFStore(path)


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[gguf\]"):
        GGUFStore(tmp_path / "a.gguf")
