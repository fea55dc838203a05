"""Weight files: what they hold, and what is said about damaged ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dl_techniques.checkpoints.tensor_files import open_tensors
from dl_techniques.errors import CheckpointError


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "a.weight": torch.randn(3, 4, generator=generator),
        "b.bias": torch.randn(5, generator=generator).to(torch.bfloat16),
        "c": torch.arange(6, dtype=torch.int64).reshape(2, 3),
        "d": torch.randn(2, 2, generator=generator).to(torch.float16),
        "scalar": torch.tensor(7),
    }


def check(source: Path) -> None:
    expected = tensors()
    with open_tensors(source) as store:
        assert sorted(store) == sorted(expected)
        for name, tensor in expected.items():
            values = store.read(name)
            assert store[name].shape == tuple(tensor.shape) == values.shape
            assert store[name].dtype == values.dtype
            np.testing.assert_array_equal(values.astype("float64"), tensor.double().numpy())
        assert store["b.bias"].dtype == ml_dtypes.bfloat16
        assert store.nbytes == sum(t.numel() * t.element_size() for t in expected.values())


def safetensors_folder(folder: Path) -> Path:
    save_file(tensors(), folder / "model.safetensors")
    return folder


def sharded(folder: Path) -> Path:
    names = list(tensors())
    shards = {"model-00001-of-00002.safetensors": names[:2]}
    shards["model-00002-of-00002.safetensors"] = names[2:]
    for file, held in shards.items():
        save_file({n: tensors()[n] for n in held}, folder / file)
    table = {n: file for file, held in shards.items() for n in held}
    index = {"metadata": {}, "weight_map": table}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def pickle_file(folder: Path) -> Path:
    torch.save(tensors(), folder / "weights.pt")
    return folder / "weights.pt"


def nested_pickle(folder: Path) -> Path:
    content = {"epoch": 3, "state_dict": tensors()}
    torch.save(content, folder / "weights.pth.tar", _use_new_zipfile_serialization=False)
    return folder / "weights.pth.tar"


@pytest.mark.parametrize("make", [safetensors_folder, sharded, pickle_file, nested_pickle])
def test_arrays_come_back_as_they_were_stored(make: Callable[[Path], Path], tmp_path: Path) -> None:
    check(make(tmp_path))


class Malicious:
    """Would run code when a plain unpickler reads it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.mark,))


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"a": torch.ones(1), "b": Malicious(mark)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="refused"):
        open_tensors(tmp_path / "w.pth")
    assert not mark.exists()


@pytest.mark.parametrize("keep", [4, 60, -1])
def test_truncated_safetensors(keep: int, tmp_path: Path) -> None:
    file = safetensors_folder(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="cut short"):
        open_tensors(tmp_path)


def test_truncated_pickle(tmp_path: Path) -> None:
    file = pickle_file(tmp_path)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_tensors(file)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    (sharded(tmp_path) / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match="missing shards .*00002-of-00002.*index.json names; down"
    ):
        open_tensors(tmp_path)


def test_truncated_shard(tmp_path: Path) -> None:
    file = sharded(tmp_path) / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="00002-of-00002.*cut short"):
        open_tensors(tmp_path)


def edit_index(folder: Path, change: Callable[[dict], object]) -> None:
    path = folder / "model.safetensors.index.json"
    content = json.loads(path.read_text())
    change(content["weight_map"])
    path.write_text(json.dumps(content))


def test_index_that_names_a_wrong_shard(tmp_path: Path) -> None:
    edit_index(sharded(tmp_path), lambda m: m.update(c="model-00001-of-00002.safetensors"))
    said = "wrong index, model-00001-of-00002.safetensors holds no 'c'; download the index again"
    with pytest.raises(CheckpointError, match=said):
        open_tensors(tmp_path)


def test_index_that_forgets_an_array(tmp_path: Path) -> None:
    edit_index(sharded(tmp_path), lambda m: m.pop("d"))
    with pytest.raises(
        CheckpointError, match="wrong index, it does not name .*'d'.*that the shards hold"
    ):
        open_tensors(tmp_path)


def test_damaged_index(tmp_path: Path) -> None:
    (sharded(tmp_path) / "model.safetensors.index.json").write_text("{")
    with pytest.raises(CheckpointError, match="no index"):
        open_tensors(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "no index of shards"),
        ('{"metadata": {}}', "no index of shards .*weight_map"),
        ('{"weight_map": 5}', "weight_map is 5, expected an object"),
        ('{"weight_map": ["a"]}', "weight_map is .*, expected an object"),
        ('{"weight_map": {"a.weight": 3}}', "the file of 'a.weight' is 3, expected text"),
        ('{"weight_map": {"a.weight": "../x.safetensors"}}', "expected a file beside the index"),
        ('{"weight_map": {"a.weight": ""}}', "missing shards"),
        ('{"weight_map": {"a.weight": "x.safetensors"}}', "missing shards .*x.safetensors.* that"),
        ("\xff", "no index of shards"),
    ],
)
def test_an_index_with_a_wrong_field(content: str, said: str, tmp_path: Path) -> None:
    index = sharded(tmp_path) / "model.safetensors.index.json"
    index.write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=said) as caught:
        open_tensors(tmp_path)
    assert str(tmp_path) in str(caught.value) and "index" in str(caught.value)


def test_an_index_that_names_an_array_of_no_shard(tmp_path: Path) -> None:
    shard = "model-00001-of-00002.safetensors"
    edit_index(sharded(tmp_path), lambda m: m.update(extra=shard))
    with pytest.raises(CheckpointError, match=f"wrong index, {shard} holds no 'extra'; download"):
        open_tensors(tmp_path)


def test_shards_without_index(tmp_path: Path) -> None:
    (sharded(tmp_path) / "model.safetensors.index.json").unlink()
    with pytest.raises(CheckpointError, match="without their index"):
        open_tensors(tmp_path)


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        open_tensors(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match="expected model.safetensors"):
        open_tensors(tmp_path)
    (tmp_path / "w.txt").write_text("x")
    with pytest.raises(CheckpointError, match="not a weight file"):
        open_tensors(tmp_path / "w.txt")
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="no table of weights"):
        open_tensors(tmp_path / "w.pt")
