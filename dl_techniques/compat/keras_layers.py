"""What Keras' layers keep to themselves: their parts, their lock, their names.

Needed for every change of form: fusing, quantizing, pruning, distilling, LoRA.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import keras
from keras.src.backend.common.stateless_scope import in_stateless_scope as _in_stateless_scope

Layer = Any
"""A `keras.layers.Layer`, whose class has no types."""


def in_stateless_scope() -> bool:
    """Whether variables are being traced: what is assigned now would be lost."""
    return bool(_in_stateless_scope())


def parts_of(layer: Layer) -> list[Layer]:
    """The sublayers of a layer, each once, in the order in which it got them."""
    found: dict[int, Layer] = {}
    for part in list(layer._layers):
        if isinstance(part, keras.layers.Layer):
            found.setdefault(id(part), part)
    return list(found.values())


def all_parts(layer: Layer, include_self: bool = False) -> list[Layer]:
    """All layers below a layer, at any depth."""
    return list(layer._flatten_layers(include_self=include_self, recursive=True))


def named_parts(layer: Layer) -> Iterator[tuple[str, Layer]]:
    """All layers below a layer, parents first, with their paths: names joined by "/"."""
    yield from _below(layer, "", set())


def _below(layer: Layer, path: str, seen: set[int]) -> Iterator[tuple[str, Layer]]:
    for part in parts_of(layer):
        if id(part) in seen:
            continue
        seen.add(id(part))
        place = f"{path}/{part.name}" if path else part.name
        yield place, part
        yield from _below(part, place, seen)


def sort_parts(layer: Layer, key: Callable[[Layer], Any]) -> None:
    """Puts the sublayers of a layer in another order: optimizers number variables by it."""
    layer._layers.sort(key=key)


@contextmanager
def unlocked(layer: Layer) -> Iterator[None]:
    """Lets a built layer gain and lose parts and variables inside the block."""
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        yield
    finally:
        if locked:
            layer._lock_state()


def drop_part(layer: Layer, name: str) -> None:
    """Removes a sublayer from an unlocked layer, if it has it."""
    part = getattr(layer, name, None)
    if part is not None:
        layer._tracker.untrack(part)
        setattr(layer, name, None)


def name_scope_of(layer: Layer) -> AbstractContextManager[Any]:
    """Where variables that are made get their paths: below the layer's own."""
    scope: AbstractContextManager[Any] = layer._open_name_scope()
    return scope


def variables_as_made(layer: Layer) -> tuple[list[Any], list[Any]]:
    """A layer's own variables: those made trainable, and the others.

    A variable stays in the list that it was made for, whatever its flag is later.
    """
    return list(layer._trainable_variables), list(layer._non_trainable_variables)


def forget_variable(layer: Layer, variable: keras.Variable) -> None:
    """Takes a variable from an unlocked layer."""
    layer._untrack_variable(variable)


def list_torch_parameters(layer: Layer) -> None:
    """Makes a layer's list of torch parameters anew, on the backend that has one."""
    if hasattr(layer, "_track_variables"):
        layer._track_variables()


def integer_kernel(layer: Layer) -> keras.Variable | None:
    """The variable behind `layer.kernel`, which makes floats of integers; None without one."""
    variable: keras.Variable | None = getattr(layer, "_kernel", None)
    return variable


def has_automatic_name(layer: Layer) -> bool:
    """Whether Keras made a layer's name from its class, a number behind it aside."""
    bare = without_number(layer)
    return bare.replace("_", "") == type(layer).__name__.replace("_", "").lower()


def without_number(layer: Layer) -> str:
    """A layer's name without the number that Keras puts behind a second one."""
    return re.sub(r"_\d+$", "", layer.name)


def quantization_config(layer: Layer) -> Any:
    """By what rule Keras quantized a layer; None for a layer that it does not quantize."""
    return getattr(layer, "quantization_config", None)


def table_of(embedding: Layer) -> keras.Variable:
    """The variable behind `embedding.embeddings`."""
    variable: keras.Variable = embedding._embeddings
    return variable
