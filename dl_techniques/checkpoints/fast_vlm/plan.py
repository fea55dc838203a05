"""What loading a folder will take, before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dl_techniques.checkpoints.fast_vlm.loading import read_and_check
from dl_techniques.checkpoints.fast_vlm.source import Source, is_fast_vlm_folder
from dl_techniques.checkpoints.tensor_files import TensorStore, open_tensors
from dl_techniques.checkpoints.weight_map import WeightMap
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vlm.fast_vlm.network.variants import load_vlm_variants

BYTES = {"bfloat16": 2, "float32": 4}
RUNTIME_BYTES = 128 * 2**20
"""What the backends take beside the weights; `tools.measure_loading` saw 5 to 121 million."""


@dataclass(frozen=True)
class LoadPlan:
    """A folder's contents and what loading them takes.

    Args:
        source: the folder.
        what: in words, e.g. "FastVLM, decoder of 24 layers and width 896 (fastvlm_0.5b)".
        layout: "apple" or "transformers".
        tensors: arrays in the file.
        unread: arrays that nothing needs (the unused projection, counters).
        stored_bytes: bytes of all arrays in the file.
        parameters: numbers that the network holds, running statistics included.
        weight_bytes: data type -> bytes of the network's weights.
        peak_bytes: data type -> most bytes while loading: the weights, or the largest array
            twice over where that is more, and what a backend takes for itself.
    """

    source: Path
    what: str
    layout: str
    tensors: int
    unread: int
    stored_bytes: int
    parameters: int
    weight_bytes: Mapping[str, int]
    peak_bytes: Mapping[str, int]

    def lines(self) -> list[str]:
        """The plan for people to read."""
        memory = ", ".join(
            f"{name} {_gigabytes(self.weight_bytes[name])} (at most {_gigabytes(peak)} on the way)"
            for name, peak in self.peak_bytes.items()
        )
        return [
            f"{self.source}: {self.what}, {self.layout} layout",
            f"{self.tensors} tensors, {self.unread} of them not needed, "
            f"{_gigabytes(self.stored_bytes)} on disk, {self.parameters:,} numbers",
            f"memory of the weights: {memory}",
        ]


def estimate(source: str | Path) -> LoadPlan:
    """Reads configs and shapes, checks that they fit, and adds up; no weight is read.

    Args:
        source: a folder in Apple's or Hugging Face's layout.

    Raises:
        CheckpointError: it is none, or cannot be loaded; the reason is the one that loading gives.
    """
    folder = Path(source).expanduser()
    if not is_fast_vlm_folder(folder):
        raise CheckpointError(
            f"{folder}: no FastVLM folder; expected a config.json of model_type llava_qwen2 or "
            "fast_vlm"
        )
    with open_tensors(folder) as store:
        found, _, entries, _ = read_and_check(store, folder)
        return _plan(found, store, entries)


def _plan(source: Source, store: TensorStore, entries: WeightMap) -> LoadPlan:
    sizes = [math.prod(entry.source_shape) for entry in entries.values()]
    largest = max(store[name].nbytes for name in entries)
    weights = {name: sum(sizes) * size for name, size in BYTES.items()}
    # An array as stored, once more as it is laid out here, and once more in its new type.
    first = {name: 2 * largest + max(sizes) * size for name, size in BYTES.items()}
    return LoadPlan(
        source=source.folder,
        what=_what(source),
        layout=source.layout.name,
        tensors=len(store),
        unread=len(store) - len(entries),
        stored_bytes=store.nbytes,
        parameters=sum(sizes),
        weight_bytes=weights,
        peak_bytes={name: max(first[name], weights[name]) + RUNTIME_BYTES for name in BYTES},
    )


def _what(source: Source) -> str:
    numbers = source.decoder.kwargs
    words = f"FastVLM, decoder of {numbers['num_layers']} layers and width {numbers['hidden_dim']}"
    for name in load_vlm_variants():
        try:
            source.check_variant(name)
        except CheckpointError:
            continue  # another size
        return f"{words} ({name})"
    return words


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
