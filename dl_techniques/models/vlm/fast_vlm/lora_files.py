"""LoRA weights as a file whose layers are named by path.

KerasHub numbers the layers in the order in which Keras finds them, which differs between backends
(0.32). Here a layer is the names on the way to it, such as
`text_backbone/transformer_layer_0/self_attention/query`, which are the same everywhere.

Layout: HDF5, `lora/rank`, and for each layer the group `lora/PATH` with its LoRA matrices and, as
it is trained beside them, its bias. Files with numbers are read as well (`lora_numbers`).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from dl_techniques.data.files import atomic_writer
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vlm.fast_vlm.lora_numbers import numbered_layers

SUFFIX = ".lora.h5"
Array = np.ndarray[Any, np.dtype[Any]]
Weights = dict[str, Array]


def save(backbone: keras.Model, path: str | Path) -> None:
    """Writes the LoRA weights of a backbone, the file whole or not at all.

    Args:
        backbone: a FastVLMBackbone after `enable_lora`.
        path: of the file, ending in `.lora.h5`.

    Raises:
        ValueError: no layer has LoRA, or another ending.
    """
    layers = adapted_layers(backbone)
    if not layers:
        raise ValueError(f"{backbone.name} has no layer with LoRA: call enable_lora(rank) first")
    if not str(path).endswith(SUFFIX):
        raise ValueError(f"the name of a file of LoRA weights must end in {SUFFIX}, got {path}")
    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        file["lora/rank"] = _rank(layers)
        for place, layer in layers.items():
            for name, variable in _trained(layer).items():
                array = keras.ops.convert_to_numpy(keras.ops.cast(variable, "float32"))
                file[f"lora/{place}/{name}"] = array
    with atomic_writer(path, binary=True) as target:
        target.write(made.getvalue())


def load(backbone: keras.Model, path: str | Path) -> None:
    """Reads LoRA weights, and enables LoRA where it is not; numbers change all or none.

    Args:
        backbone: a FastVLMBackbone.
        path: of a file that any backend wrote.

    Raises:
        CheckpointError: no such file, a damaged one, or one of other layers, shapes or rank.
    """
    rank, stored = _read(Path(path))
    numbered = all(place.isdigit() for place in stored)
    if not adapted_layers(backbone):
        names = None if numbered else sorted({place.rsplit("/", 1)[-1] for place in stored})
        backbone.enable_lora(rank, names)
    layers = adapted_layers(backbone)
    if rank != _rank(layers):
        raise CheckpointError(
            f"{path} has LoRA of rank {rank}, {backbone.name} of rank {_rank(layers)}: load the "
            f"file into a model without LoRA, or after enable_lora({rank})"
        )
    if numbered:
        layers = numbered_layers(backbone, {int(place) for place in stored}, path)
    for variable, values in _matched(layers, stored, path):
        variable.assign(values)


def adapted_layers(backbone: keras.Model) -> dict[str, Any]:
    """The layers of a FastVLMBackbone that have LoRA: path -> layer.

    Raises:
        ValueError: two of them have the same path.
    """
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for name, part in parts_of(backbone).items():
        for place, layer in [(name, part), *_below(part, name, seen)]:
            if not getattr(layer, "lora_enabled", False):
                continue
            if place in found:
                raise ValueError(f"two layers with LoRA are called {place}: give them own names")
            found[place] = layer
    return found


def parts_of(backbone: keras.Model) -> dict[str, Any]:
    """The parts of a FastVLMBackbone under names that no backend and no decoder changes."""
    return {
        "text_backbone": backbone.text_backbone,
        "vision_encoder": backbone.vision_encoder,
        "projector": backbone.projector,
        "selector": backbone.image_embedding.selector,
    }


def _below(layer: keras.layers.Layer, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The layers inside a layer, each once."""
    for child in layer._layers:
        if isinstance(child, keras.layers.Layer) and id(child) not in seen:
            seen.add(id(child))
            place = f"{path}/{child.name}"
            yield place, child
            yield from _below(child, place, seen)


def _trained(layer: keras.layers.Layer) -> dict[str, Any]:
    """What training moves in a layer with LoRA."""
    return {v.name: v for v in layer.weights if v.name.startswith("lora_") or v.name == "bias"}


def _rank(layers: Mapping[str, Any]) -> int:
    ranks = sorted({int(layer.lora_rank) for layer in layers.values()})
    if len(ranks) != 1:
        raise ValueError(f"layers with LoRA must have one rank, these have {ranks}")
    return ranks[0]


def _read(path: Path) -> tuple[int, dict[str, Weights]]:
    """The rank, and of every layer, by path or number, its arrays."""
    stored: dict[str, Weights] = {}

    def note(name: str, entry: Any) -> None:
        # Numbered files have `lora/97/vars/lora_kernel_a`, as Keras' own writer makes them.
        place, _, key = name.rpartition("/")
        if isinstance(entry, h5py.Dataset) and place.removesuffix("vars"):
            stored.setdefault(place.removesuffix("/vars"), {})[key] = entry[()]

    try:
        with h5py.File(path, "r") as file:
            group = file["lora"]
            rank = int((group["rank"] if "rank" in group else group["vars/rank"])[()])
            group.visititems(note)
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path} cannot be read as LoRA weights ({reason}): give a {SUFFIX} file that "
            "save_lora_weights() wrote"
        ) from error
    if not stored:
        raise CheckpointError(f"{path} holds no LoRA weights of any layer")
    return rank, stored


def _matched(
    layers: Mapping[str, Any], stored: Mapping[str, Weights], path: str | Path
) -> list[tuple[Any, Array]]:
    """Variables and their values; all of them fit."""
    if set(layers) != set(stored):
        raise CheckpointError(
            f"{path} is for the layers {_few(stored)}, and the model has LoRA in {_few(layers)}: "
            "load it into the kind of model it was saved from, without enable_lora or with the "
            "same layer names"
        )
    pairs: list[tuple[Any, Array]] = []
    for place, arrays in stored.items():
        variables = _trained(layers[place])
        wanted = {name: tuple(v.shape) for name, v in variables.items()}
        given = {name: a.shape for name, a in arrays.items()}
        needed = {name for name in wanted if name != "bias"}
        if not needed <= set(given) or not given.items() <= wanted.items():
            raise CheckpointError(
                f"{path}: layer {place} has arrays {given}, expected {wanted}; the file belongs to "
                "another model"
            )
        pairs += [(variables[name], array) for name, array in arrays.items()]
    return pairs


def _few(places: Iterable[str]) -> str:
    """The first paths of many."""
    ordered = sorted(places)
    more = f" and {len(ordered) - 2} more" if len(ordered) > 2 else ""
    return ", ".join(ordered[:2]) + more
