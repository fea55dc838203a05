"""Which parts of a layer are frozen: read, written into its config, brought back.

Keras keeps one flag a layer and one a variable. A config that was written by hand holds arguments,
not parts, so it needs a word about the parts as well, or a frozen block comes back trainable and
the optimizer's state, which counts trainable variables, no longer fits.

    flags of the parts   path of a part -> its flag, where it is not that of the part above
                         ("stem": False); of a variable "path:name"

Paths join names by "/". Names that Keras made up ("dense_7") differ from process to process; in
their place stands the class with its number among its kind there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras

from dl_techniques.compat.keras_layers import (
    has_automatic_name,
    parts_of,
    variables_as_made,
    without_number,
)

OWN, PARTS = "trainable", "trainable_parts"
"""Names in a config: the layer's own flag, and the flags of its parts."""

Flags = dict[str, bool]


def _named_parts(layer: keras.layers.Layer) -> Iterator[tuple[str, Any]]:
    """The layers right below a layer with their names in paths; each name comes once.

    A model whose layers are not those of its graph says itself what it consists of, in
    `parts_with_flags`.
    """
    own = getattr(layer, "parts_with_flags", None)
    # What else a model holds differs between the backends, and comes last.
    graph = layer.layers if isinstance(layer, keras.Model) else []
    parts = [*graph, *parts_of(layer)] if own is None else own
    counts: dict[str, int] = {}
    seen: set[int] = set()
    for part in parts:
        if id(part) in seen or not isinstance(part, keras.layers.Layer):
            continue
        seen.add(id(part))
        name = _stable_name(part)
        number = counts[name] = counts.get(name, -1) + 1
        yield (f"{name}#{number}" if number else name), part


def _stable_name(layer: keras.layers.Layer) -> str:
    """A layer's name; if Keras made it from the class, that without the number behind it."""
    return without_number(layer) if has_automatic_name(layer) else str(layer.name)


def own_variables(layer: keras.layers.Layer) -> list[tuple[Any, bool]]:
    """The variables of a layer itself, and whether each follows the layer's flag."""
    born_trainable, others = variables_as_made(layer)
    return [(v, True) for v in born_trainable] + [(v, False) for v in others]


def _below(layer: keras.layers.Layer) -> list[tuple[str, str, Any]]:
    """(path, path of the part above, part) of all parts, every one after all that hold it."""
    found: list[tuple[str, str, Any]] = []
    seen: set[int] = set()

    def visit(holder: Any, path: str) -> None:
        for name, part in _named_parts(holder):
            if id(part) not in seen:
                seen.add(id(part))
                place = f"{path}/{name}" if path else name
                visit(part, place)
                found.append((place, path, part))

    visit(layer, "")
    return found[::-1]


def part_flags(layer: keras.layers.Layer) -> Flags:
    """The flags of everything below a layer that are not what the part above says.

    Example:
        >>> block = keras.Sequential([keras.layers.Dense(2, name="a"), keras.layers.Dense(2)])
        >>> block.layers[0].trainable = False
        >>> part_flags(block)
        {'a': False}
    """
    flags = _variable_flags(layer, "")
    of_path = {"": bool(layer.trainable)}
    for path, above, part in _below(layer):
        of_path[path] = bool(part.trainable)
        if of_path[path] != of_path[above]:
            flags[path] = of_path[path]
        flags |= _variable_flags(part, path)
    return flags


def _variable_flags(layer: keras.layers.Layer, path: str) -> Flags:
    # The matrices of LoRA are merged when a layer is saved: nothing is left to have a flag.
    return {
        f"{path}:{variable.name}": bool(variable.trainable)
        for variable, follows in own_variables(layer)
        if variable.trainable != (layer.trainable and follows)
        and not variable.name.startswith("lora_")
    }


def set_flags(layer: keras.layers.Layer, trainable: bool, flags: Mapping[str, bool]) -> None:
    """Gives a layer its flag, and everything below it the flags that `part_flags` read.

    What `flags` does not name takes the flag of the part above it. Names of parts that the layer
    does not have (a classifier that was left out) mean nothing.

    Args:
        layer: built.
        trainable: its own flag.
        flags: of a layer with the same parts.
    """
    of_path = {"": trainable}
    layer.trainable = trainable  # also everything below
    parts = _below(layer)
    for path, above, part in parts:
        of_path[path] = flags.get(path, of_path[above])
        if part.trainable != of_path[path]:
            part.trainable = of_path[path]
    for path, _, part in [("", "", layer), *parts]:
        for variable, follows in own_variables(part):
            wanted = flags.get(f"{path}:{variable.name}", of_path[path] and follows)
            if variable.trainable != wanted:
                variable.trainable = wanted


def flags_config(layer: keras.layers.Layer) -> dict[str, Any]:
    """What a config that was written by hand says about flags; nothing where all is trainable."""
    own = {} if layer.trainable else {OWN: False}
    flags = part_flags(layer)
    return {**own, PARTS: flags} if flags else own


def take_flags(config: dict[str, Any]) -> tuple[bool, Flags]:
    """Takes the two entries out of a config: the own flag and those of the parts."""
    return bool(config.pop(OWN, True)), dict(config.pop(PARTS, None) or {})


class LayerOfParts(keras.layers.Layer):
    """A layer that consists of layers, and keeps the flags of each in its config.

    Args:
        trainable_parts: flags of the parts, see `part_flags`; written by `get_config`.
        **kwargs: name, dtype, trainable.
    """

    def __init__(self, *, trainable_parts: Mapping[str, bool] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # Plain data, no part of the layer: kept out of what Keras tracks.
        object.__setattr__(self, "_awaited_flags", dict(trainable_parts or {}))

    def _post_build(self) -> None:
        """Keras' hook behind `build` (3.15): now the parts are there that the flags are of."""
        flags = self._awaited_flags
        object.__setattr__(self, "_awaited_flags", {})
        if flags or not self.trainable:
            set_flags(self, self.trainable, flags)
        super()._post_build()

    def get_config(self) -> dict[str, Any]:
        """Keras' config, and the flags of the parts where they differ from the layer's."""
        flags = part_flags(self) if self.built else self._awaited_flags
        return {**super().get_config(), **({PARTS: flags} if flags else {})}
