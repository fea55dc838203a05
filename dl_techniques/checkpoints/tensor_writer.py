"""Writes `.safetensors` files one array at a time, whole or in shards with an index.

The library's own writer wants all arrays in memory at once, which a model of several gigabytes
does not leave room for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dl_techniques.checkpoints.tensor_files import SAFETENSORS_NAMES, TensorInfo
from dl_techniques.data.files import atomic_writer
from dl_techniques.errors import CheckpointError

ALIGNMENT = 8
MAX_SHARD_BYTES = 5_000_000_000


def save_tensors(
    folder: Path,
    tensors: Mapping[str, TensorInfo],
    read: Callable[[str], np.ndarray],
    max_shard_bytes: int = MAX_SHARD_BYTES,
    progress: Callable[[int], None] | None = None,
    resume: bool = False,
) -> list[Path]:
    """Writes `model.safetensors`, or shards and `model.safetensors.index.json`.

    Args:
        folder: where to; made if needed.
        tensors: name -> shape and type of what will be written.
        read: gives the array of a name; called once each, in order.
        max_shard_bytes: a shard is closed before it would grow beyond this.
        progress: told the bytes of each array that was written.
        resume: keep files that are there whole with the same names, shapes and types. The caller
            makes sure that they come from the same weights.

    Returns:
        The files written, the index last.

    Raises:
        CheckpointError: `read` gave another shape or type than announced.
    """
    shards = _split(tensors, max_shard_bytes)
    if len(shards) == 1:
        path = folder / "model.safetensors"
        _write_or_keep(path, shards[0], read, progress, resume)
        return [path]
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_or_keep(folder / name, shard, read, progress, resume)
    index = folder / "model.safetensors.index.json"
    table = {t: name for name, shard in zip(names, shards, strict=True) for t in shard}
    total = sum(info.nbytes for info in tensors.values())
    with atomic_writer(index) as file:
        json.dump({"metadata": {"total_size": total}, "weight_map": table}, file, indent=2)
    return [*(folder / name for name in names), index]


def _write_or_keep(
    path: Path,
    tensors: Mapping[str, TensorInfo],
    read: Callable[[str], np.ndarray],
    progress: Callable[[int], None] | None,
    resume: bool,
) -> None:
    """Writes a file unless it is there already."""
    if resume and _is_written(path, tensors):
        if progress is not None:
            progress(sum(info.nbytes for info in tensors.values()))
        return
    write_safetensors(path, tensors, read, progress)


def _is_written(path: Path, tensors: Mapping[str, TensorInfo]) -> bool:
    """Files take their names when they are whole, so header and size say enough."""
    if not path.is_file():
        return False
    header = _header(tensors)
    with path.open("rb") as file:
        same = file.read(len(header)) == header
    total = sum(info.nbytes for info in tensors.values())
    return same and path.stat().st_size == len(header) + total


def _split(tensors: Mapping[str, TensorInfo], limit: int) -> list[dict[str, TensorInfo]]:
    shards: list[dict[str, TensorInfo]] = [{}]
    size = 0
    for name, info in tensors.items():
        if shards[-1] and size + info.nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = info
        size += info.nbytes
    return shards


def write_safetensors(
    path: Path,
    tensors: Mapping[str, TensorInfo],
    read: Callable[[str], np.ndarray],
    progress: Callable[[int], None] | None = None,
) -> None:
    """Writes one file; it takes its name only when it is whole."""
    with atomic_writer(path, binary=True) as file:
        file.write(_header(tensors))
        for name, info in tensors.items():
            array = np.asarray(read(name), order="C")
            if array.shape != info.shape or array.dtype != info.dtype:
                raise CheckpointError(
                    f"{name!r}: announced as {info.shape} {info.dtype}, came as {array.shape} "
                    f"{array.dtype}"
                )
            file.write(array.reshape(-1).view(np.uint8).data)
            if progress is not None:
                progress(array.nbytes)


def _header(tensors: Mapping[str, TensorInfo]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, info in tensors.items():
        end = offset + info.nbytes
        header[name] = {
            "dtype": SAFETENSORS_NAMES[info.dtype],
            "shape": list(info.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
