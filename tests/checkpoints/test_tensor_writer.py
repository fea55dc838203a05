"""Writing weight files one array at a time."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from dl_techniques.checkpoints.tensor_files import TensorInfo, open_tensors
from dl_techniques.checkpoints.tensor_writer import save_tensors
from dl_techniques.errors import CheckpointError

pytestmark = pytest.mark.once

RNG = np.random.default_rng(3)
ARRAYS = {
    "a": RNG.normal(size=(8, 4)).astype("float32"),
    "b": RNG.normal(size=(16,)).astype(ml_dtypes.bfloat16),
    "c": RNG.normal(size=(4, 4)).astype("float16"),
    "scalar": np.array(3, "int64"),
}
INFOS = {name: TensorInfo(a.shape, a.dtype) for name, a in ARRAYS.items()}


@pytest.mark.parametrize(("limit", "files"), [(10_000, 1), (100, 2), (1, 4)])
def test_written_arrays_are_read_back(limit: int, files: int, tmp_path: Path) -> None:
    written = save_tensors(tmp_path, INFOS, ARRAYS.__getitem__, limit)
    shards = [path for path in written if path.suffix == ".safetensors"]
    assert len(shards) == files and all(path.is_file() for path in written)
    with open_tensors(tmp_path) as store:
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(store.read(name), array)
            assert store[name] == INFOS[name]


def test_the_library_reads_the_same(tmp_path: Path) -> None:
    save_tensors(tmp_path, INFOS, ARRAYS.__getitem__)
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        for name, array in ARRAYS.items():
            tensor = file.get_tensor(name)
            np.testing.assert_array_equal(tensor.double().numpy(), array.astype("float64"))


def test_wrong_array_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="announced"):
        save_tensors(tmp_path, INFOS, lambda name: ARRAYS[name][..., None])
    assert list(tmp_path.iterdir()) == []


def test_resuming_writes_only_what_is_missing(tmp_path: Path) -> None:
    shards = save_tensors(tmp_path, INFOS, ARRAYS.__getitem__, 100)[:-1]
    shards[1].write_bytes(shards[1].read_bytes()[:-3])
    asked: list[str] = []

    def read(name: str) -> np.ndarray:
        asked.append(name)
        return ARRAYS[name]

    done: list[int] = []
    save_tensors(tmp_path, INFOS, read, 100, done.append, resume=True)
    assert asked and "a" not in asked
    assert sum(done) == sum(info.nbytes for info in INFOS.values())
    with open_tensors(tmp_path) as store:
        np.testing.assert_array_equal(store.read("c"), ARRAYS["c"])
