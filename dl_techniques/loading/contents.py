"""What a source holds, told from its configs, names and shapes; no weight is read."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np

from dl_techniques.checkpoints import fast_vlm, vision
from dl_techniques.checkpoints.config_files import CONFIG, read_json
from dl_techniques.checkpoints.fast_vlm.source import is_fast_vlm_folder
from dl_techniques.checkpoints.tensor_files import PICKLES, SAFETENSORS, TensorStore, open_tensors
from dl_techniques.errors import PresetError
from dl_techniques.models.presets.hub import fetch, is_hub_handle
from dl_techniques.models.presets.vlm_folder import resolve_preset
from dl_techniques.models.vlm.fast_vlm.prompt.preprocessor import FastVLMCausalLMPreprocessor

CLASSES = {
    "fast_vit": "FastVLM",
    "mobile_one": "MobileOne",
    "efficientnet_lite": "EfficientNetLite",
}
OURS = {"FastVLMBackbone": "FastVLMCausalLM"} | {name: name for name in CLASSES.values()}
"""Class in `config.json` of a preset -> the class that loads it whole."""
PREPROCESSOR = "preprocessor.json"
BYTES = {"bfloat16": 2, "float32": 4}


@dataclass(frozen=True)
class Contents:
    """What a preset or checkpoint holds, and what loading it takes.

    Args:
        path: file or folder.
        model: name of the class of `dl_techniques` whose `from_preset` takes it.
        what: in words.
        layout: whose names the tensors have.
        tensors: arrays in the file.
        stored_bytes: bytes of all arrays in the file.
        parameters: numbers among them.
        precision: the type that keeps every stored number: "bfloat16" or "float32".
        peak_bytes: type -> most bytes while loading into it.
    """

    path: str
    model: str
    what: str
    layout: str
    tensors: int
    stored_bytes: int
    parameters: int
    precision: str
    peak_bytes: Mapping[str, int]

    def written_bytes(self, precision: str) -> int:
        """Bytes that the weights take on disk in a precision."""
        return self.parameters * BYTES[precision]


def contents_of(source: str | Path) -> Contents:
    """Looks through a preset or checkpoint.

    Args:
        source: a weight file, a folder, the name of a shipped preset, or `hf://org/name`.

    Raises:
        PresetError: nothing that this package can load.
        CheckpointError: damaged, or it does not fit its network.
    """
    path = fetch(str(source)) if is_hub_handle(source) else Path(source).expanduser()
    if is_fast_vlm_folder(path):
        return _fast_vlm(path)
    if _has_weights(path):
        return _vision(path)
    return _preset(Path(resolve_preset(source)))


def check_processing(found: Contents) -> None:
    """Reads what loading a model reads besides its weights: tokenizer and settings.

    Raises:
        DLTechniquesError: they are missing or damaged; the error is the one that loading gives.
    """
    path = Path(found.path)
    if found.model != OURS["FastVLMBackbone"]:
        return
    if found.layout != "keras":
        fast_vlm.check_processing(path)
    elif (path / PREPROCESSOR).is_file():
        FastVLMCausalLMPreprocessor.from_preset(path)


def _has_weights(path: Path) -> bool:
    endings = (*SAFETENSORS, *PICKLES)
    if path.is_dir():
        return any(file.suffix in endings for file in path.iterdir())
    return path.is_file() and path.suffix in endings


def _fast_vlm(path: Path) -> Contents:
    plan = fast_vlm.estimate(path)
    with open_tensors(path) as store:
        precision = stored_precision(store)
    return Contents(
        path=str(path),
        model="FastVLMCausalLM",
        what=plan.what,
        layout=plan.layout,
        tensors=plan.tensors,
        stored_bytes=plan.stored_bytes,
        parameters=plan.parameters,
        precision=precision,
        peak_bytes=dict(plan.peak_bytes),
    )


def _vision(path: Path) -> Contents:
    with open_tensors(path) as store:
        layout = vision.recognise(store, path)
        own = layout.own(store)
        numbers = sum(int(np.prod(shape)) for shape in own.values())
        largest = max(store[layout.prefix + name].nbytes for name in own)
        peak = {name: numbers * size + 2 * largest for name, size in BYTES.items()}
        network = CLASSES[layout.naming.network]
        return Contents(
            path=str(path),
            model=network,
            what=f"{network}, {vision.variant_of(layout, own, None)}",
            layout=str(layout),
            tensors=len(store),
            stored_bytes=store.nbytes,
            parameters=numbers,
            precision=stored_precision(store),
            peak_bytes=peak,
        )


def stored_precision(store: TensorStore) -> str:
    """bfloat16 where nearly all bytes are, else float32, which holds every float16 as well."""
    sizes: collections.Counter[str] = collections.Counter()
    for info in store.values():
        if info.dtype.name == "bfloat16" or info.dtype.kind == "f":
            sizes[info.dtype.name] += info.nbytes
    return _most(sizes)


def _most(sizes: collections.Counter[str]) -> str:
    return "bfloat16" if sizes and sizes.most_common(1)[0][0] == "bfloat16" else "float32"


def _preset(path: Path) -> Contents:
    """A preset that this package wrote."""
    found = _class_of(path)
    if found not in OURS:
        raise PresetError(
            f"{path} holds a {found}, which cannot be converted; expected a preset, checkpoint or "
            f"weight file of {', '.join(sorted(set(OURS.values())))}"
        )
    arrays = [a for file in sorted(path.rglob("*.weights.h5")) for a in _arrays_in(file)]
    numbers = sum(size for size, _ in arrays)
    kinds: collections.Counter[str] = collections.Counter()
    for size, dtype in arrays:
        kinds[dtype.name] += size * dtype.itemsize
    return Contents(
        path=str(path),
        model=OURS[found],
        what=f"{OURS[found]}, preset of this package",
        layout="keras",
        tensors=len(arrays),
        stored_bytes=sum(size * dtype.itemsize for size, dtype in arrays),
        parameters=numbers,
        precision=_most(kinds),
        # Random values first, and then the stored ones.
        peak_bytes={name: 2 * numbers * width for name, width in BYTES.items()},
    )


def _arrays_in(file: Path) -> list[tuple[int, np.dtype]]:
    """Numbers, and their type, of every array in a weight file of Keras."""
    found: list[tuple[int, np.dtype]] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            # HDF5 knows no bfloat16: Keras writes the bytes and says the type beside them.
            brief = item.attrs.get("dtype") == "bfloat16"
            found.append((item.size, np.dtype(ml_dtypes.bfloat16) if brief else item.dtype))

    with h5py.File(file) as store:
        store.visititems(note)
    return found


def _class_of(path: Path) -> str:
    if not path.is_dir():
        raise PresetError(f"{path} is no checkpoint; give a folder or a weight file")
    document = read_json(path / CONFIG)
    known = str(document.get("class_name") or document.get("registered_name") or "")
    return known.rpartition(">")[2] or f"model of type {document.get('model_type')!r}"
