"""Weight files as tables of named arrays, read one at a time.

`open_tensors` takes a `.safetensors` file, a torch pickle (`.bin`, `.pt`, `.pth`, `.pth.tar`), a
`.gguf`, or a folder that holds one of them whole or in shards. Shapes and types are known without
reading; an array is in memory only while its reader holds it. Torch pickles are opened with
`weights_only=True`: nothing in them is executed.
"""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from dl_techniques.checkpoints.gguf_file import GGUFStore
from dl_techniques.checkpoints.tensor_store import TensorInfo, TensorStore
from dl_techniques.data.damage import of_kind, one_line, safetensors_header, short
from dl_techniques.errors import CheckpointError, MissingExtraError, install_hint

SAFETENSORS = (".safetensors",)
PICKLES = (".bin", ".pt", ".pth", ".tar")
GGUF = (".gguf",)
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE = ("model.safetensors", "pytorch_model.bin")
# Dictionaries inside which published pickles keep their weights.
NESTS = ("state_dict", "model", "model_state_dict", "state_dict_ema")

_DTYPES: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
SAFETENSORS_NAMES = {np.dtype(kind): name for name, kind in _DTYPES.items()}
"""NumPy type -> the name that safetensors files give it."""


class SafetensorsStore(TensorStore):
    """A `.safetensors` file, mapped into memory; torch is not needed."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._offsets: dict[str, int] = {}
        self._start, header = safetensors_header(path)
        for name, entry in header.items():
            if entry["dtype"] not in _DTYPES:
                raise CheckpointError(
                    f"{path}: {short(name)} has the unknown type {short(entry['dtype'])}"
                )
            info = TensorInfo(tuple(map(int, entry["shape"])), np.dtype(_DTYPES[entry["dtype"]]))
            begin, end = entry["data_offsets"]
            if end - begin != info.nbytes:
                raise CheckpointError(
                    f"{path}: {short(name)} has {end - begin} bytes for shape {short(info.shape)} "
                    f"of {info.dtype}; the file is damaged: get it again"
                )
            self._infos[name], self._offsets[name] = info, begin

    def read(self, name: str) -> np.ndarray:
        """Reads one array in its stored type."""
        info = self[name]
        with self.path.open("rb") as file:
            file.seek(self._start + self._offsets[name])
            values = np.fromfile(file, info.dtype, math.prod(info.shape))
        return values.reshape(info.shape)


class PickleStore(TensorStore):
    """A torch pickle. Nothing but arrays is let in; dictionaries around them are opened."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._tensors = _tensors_of(_load_pickle(path), path)
        for name, tensor in self._tensors.items():
            self._infos[name] = TensorInfo(tuple(tensor.shape), _numpy_dtype(tensor))

    def read(self, name: str) -> np.ndarray:
        """Reads one array in its stored type."""
        tensor = self._tensors[name].detach().contiguous()
        if self[name].dtype == ml_dtypes.bfloat16:
            import torch

            return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
        values: np.ndarray = tensor.numpy()
        return values

    def close(self) -> None:
        """Lets go of the arrays."""
        self._tensors = {}


def _load_pickle(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(
            f"{path.name} is a torch pickle, and reading it needs torch: "
            f"{install_hint('torch')}; or give a .safetensors file"
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0][:200]
        raise CheckpointError(
            f"{path}: holds more than weights, and what could run code is refused ({reason}); save "
            "its state_dict() alone"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: cannot be read ({reason}); it may be cut short: download it again"
        ) from error


def _is_zip(path: Path) -> bool:
    """Old pickles are no zip archives and cannot be mapped."""
    return zipfile.is_zipfile(path)


def _tensors_of(content: Any, path: Path) -> dict[str, Any]:
    """The first dictionary that holds tensors, from outside in."""
    import torch

    if isinstance(content, Mapping):
        found = {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}
        if found:
            return found
        for nest in NESTS:
            if isinstance(content.get(nest), Mapping):
                return _tensors_of(content[nest], path)
    keys = list(content)[:5] if isinstance(content, Mapping) else type(content).__name__
    raise CheckpointError(f"{path}: holds no table of weights (found {keys}); give a state_dict")


def _numpy_dtype(tensor: Any) -> np.dtype:
    name = str(tensor.dtype).removeprefix("torch.")
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


class ShardedStore(TensorStore):
    """Shards and the index that says which array is in which of them."""

    def __init__(self, index: Path) -> None:
        super().__init__(index.parent)
        shards = _index_table(index)
        there = {path.name for path in index.parent.iterdir() if path.is_file()}
        missing = sorted(set(shards.values()) - there)
        if missing:
            raise CheckpointError(
                f"{index.parent}: missing shards {short(missing[:5])} that {index.name} names; "
                "download them into this folder"
            )
        self._stores = {s: open_tensors(index.parent / s) for s in sorted(set(shards.values()))}
        self._home = {name: self._stores[shard] for name, shard in shards.items()}
        for name, shard in shards.items():
            if name not in self._stores[shard]:
                raise CheckpointError(
                    f"{index}: wrong index, {shard} holds no {short(name)}; download the "
                    "index again"
                )
            self._infos[name] = self._stores[shard][name]
        forgotten = [n for store in self._stores.values() for n in store if n not in shards]
        if forgotten:
            raise CheckpointError(
                f"{index}: wrong index, it does not name {short(forgotten[:5])} that the shards "
                "hold; download the index again"
            )

    def read(self, name: str) -> np.ndarray:
        """Reads one array in its stored type."""
        return self._home[name].read(name)

    def close(self) -> None:
        """Lets go of all shards."""
        for store in self._stores.values():
            store.close()


def _index_table(index: Path) -> dict[str, str]:
    try:
        table = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{index}: no index of shards ({one_line(error)}); download it again"
        ) from error
    of_kind(table, dict, f"{index}: weight_map")
    for name, shard in table.items():
        what = f"{index}: the file of {short(name)}"
        # A name with a folder in it would be read from outside of the checkpoint.
        if of_kind(shard, str, what) != Path(shard).name:
            raise CheckpointError(f"{what} is {short(shard)}, expected a file beside the index")
    return dict(table)


def open_tensors(source: str | Path) -> TensorStore:
    """Opens a checkpoint.

    Args:
        source: a weight file, or a folder with one (`model.safetensors`, `pytorch_model.bin`, the
            index of a sharded one, or a single weight file of any name).

    Raises:
        CheckpointError: nothing there, damaged, a shard is missing or the index is wrong.
        MissingExtraError: a torch pickle where torch is not installed.

    Example:
        >>> import tempfile, numpy as np
        >>> from safetensors.numpy import save_file
        >>> path = tempfile.mkdtemp() + "/model.safetensors"
        >>> save_file({"fc.weight": np.ones((2, 3), "float32")}, path)
        >>> with open_tensors(path) as store:
        ...     store["fc.weight"].shape, float(store.read("fc.weight").sum())
        ((2, 3), 6.0)
    """
    path = Path(source).expanduser()
    if path.is_dir():
        path = _file_of(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file or folder; give a weight file or its folder")
    if path.name.endswith(".index.json"):
        return ShardedStore(path)
    if path.suffix in SAFETENSORS:
        return SafetensorsStore(path)
    if path.suffix in PICKLES:
        return PickleStore(path)
    if path.suffix in GGUF:
        return GGUFStore(path)
    known = ", ".join((*SAFETENSORS, *PICKLES, *GGUF))
    raise CheckpointError(f"{path}: not a weight file; expected one of {known}, or a folder")


def _file_of(folder: Path) -> Path:
    for name in (*INDEXES[:1], *WHOLE[:1], *INDEXES[1:], *WHOLE[1:]):
        if (folder / name).is_file():
            return folder / name
    endings = (*SAFETENSORS, *PICKLES, *GGUF)
    found = sorted(p for p in folder.iterdir() if p.suffix in endings)
    if len(found) == 1:
        return found[0]
    if _looks_like_shard(found):
        raise CheckpointError(
            f"{folder}: {len(found)} shards without their index ({INDEXES[0]}); download it too"
        )
    names = [p.name for p in found] or "none"
    raise CheckpointError(
        f"{folder}: expected {' or '.join((*WHOLE, *INDEXES))}; weight files there: {names}"
    )


def _looks_like_shard(files: list[Path]) -> bool:
    return any("-of-" in file.name for file in files)
