"""Tables that say which array of a file is which variable of a model, both ways.

A table is a list of `Rule`s. A rule's target is a pattern over the paths of Keras variables, with
fields in braces (`{s}`, `{b}` ...: one part of a path each); its source is the name in the file,
written with the same fields. `build_map` finds rule and name for each of a model's variables;
`load_weights` and `export_weights` walk the resulting map.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dl_techniques.checkpoints.tensor_files import TensorStore
from dl_techniques.errors import CheckpointError
from dl_techniques.runtime.lazy_build import place
from dl_techniques.typing import Sides

SHOWN = 8


@dataclass(frozen=True)
class Transform:
    """How an array of a file becomes a variable, and back.

    Args:
        name: for messages.
        to_keras: (stored array, shape of the variable) -> array of that shape.
        to_source: (array of the variable, shape that the file wants) -> stored array. Without a
            wanted shape (`None`) it gives the layout's natural one.
        source_shape: shape of the variable -> shape that a file must have.
    """

    name: str
    to_keras: Callable[[np.ndarray, Sides], np.ndarray]
    to_source: Callable[[np.ndarray], np.ndarray]
    source_shape: Callable[[Sides], Sides]


def _multiplied(array: np.ndarray, shape: Sides) -> np.ndarray:
    """(C * m, 1, k, k) -> (k, k, C, m): output channel c * m + j comes from input channel c."""
    height, width, channels, multiplier = shape
    return array.reshape(channels, multiplier, height, width).transpose(2, 3, 0, 1)


def _grouped(array: np.ndarray) -> np.ndarray:
    height, width, channels, multiplier = array.shape
    return array.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)


AS_IS = Transform("as is", lambda a, s: a, lambda a: a, lambda s: s)
DENSE = Transform("transposed", lambda a, s: a.T, lambda a: a.T, lambda s: s[::-1])
CONV = Transform(
    "OIHW to HWIO",
    lambda a, s: a.transpose(2, 3, 1, 0),
    lambda a: a.transpose(3, 2, 0, 1),
    lambda s: (s[3], s[2], s[0], s[1]),
)
DEPTHWISE = Transform(
    "depthwise, one group an input channel",
    _multiplied,
    _grouped,
    lambda s: (s[2] * s[3], 1, s[0], s[1]),
)
POINTWISE = Transform(
    "1x1 convolution to dense",
    lambda a, s: a[:, :, 0, 0].T,
    lambda a: a.T[:, :, None, None],
    lambda s: (s[1], s[0], 1, 1),
)
CHANNELS = Transform(
    "(C, 1, 1) to (C,)",
    lambda a, s: a.reshape(s),
    lambda a: a[:, None, None],
    lambda s: (s[0], 1, 1),
)


@dataclass(frozen=True)
class Rule:
    """One line of a table.

    Args:
        target: pattern of a variable's path below the model, e.g. `stage_{s}/block_{b}/gamma`.
        source: name in the file with the same fields, e.g. `stages.{stage}.blocks.{b}.gamma`.
        transform: between the two.
        optional: the file may lack it, and the variable keeps what it has.
    """

    target: str
    source: str
    transform: Transform = AS_IS
    optional: bool = False


@dataclass(frozen=True)
class Entry:
    """One variable, the path it has, and how the file's array becomes it."""

    path: str
    variable: Any
    transform: Transform
    optional: bool = False

    @property
    def source_shape(self) -> Sides:
        """The shape that the file must have."""
        return tuple(self.transform.source_shape(tuple(self.variable.shape)))


WeightMap = dict[str, Entry]
Derive = Callable[[dict[str, str]], dict[str, str]]


def pattern_of(target: str) -> re.Pattern[str]:
    """A target with its fields as named groups; a field is one part of a path or a piece of it."""
    parts = re.split(r"\{(\w+)\}", target)
    seen: set[str] = set()
    text = ""
    for position, part in enumerate(parts):
        if position % 2 == 0:
            text += re.escape(part)
        elif part in seen:
            text += f"(?P={part})"
        else:
            seen.add(part)
            text += f"(?P<{part}>[^/]+?)"
    return re.compile(text + r"\Z")


def build_map(
    variables: Iterable[tuple[str, Any]], rules: Sequence[Rule], derive: Derive | None = None
) -> WeightMap:
    """Finds name and transform for every variable.

    Args:
        variables: (path below the model, variable) pairs.
        rules: the first whose target fits the path counts.
        derive: adds fields computed from the matched ones, e.g. an index from 0.

    Returns:
        Name in the file -> `Entry`.

    Raises:
        CheckpointError: a variable that no rule knows, or two variables with one name: the table
            does not belong to this model.
    """
    compiled = [(pattern_of(rule.target), rule) for rule in rules]
    entries: WeightMap = {}
    for path, variable in variables:
        found = next(((m, r) for p, r in compiled if (m := p.match(path)) is not None), None)
        if found is None:
            raise CheckpointError(
                f"no rule for the variable {path!r}: this layout has no such part"
            )
        match, rule = found
        fields = match.groupdict()
        name = rule.source.format(**{**fields, **(derive(fields) if derive else {})})
        if name in entries:
            raise CheckpointError(f"{path!r} and {entries[name].path!r} both come from {name!r}")
        entries[name] = Entry(path, variable, rule.transform, rule.optional)
    return entries


def check_coverage(
    store: Mapping[str, Any], entries: WeightMap, ignore: Sequence[str] = (), prefix: str = ""
) -> None:
    """Compares a file's names and shapes with a map.

    Args:
        store: name -> something with a `shape`.
        entries: the map.
        ignore: regular expressions of names that may stay unused.
        prefix: of the map's names in the file; names without it are none of this map's business.

    Raises:
        CheckpointError: missing, unused or mis-shaped names, all of them counted, the first shown.
    """
    own = {name.removeprefix(prefix): name for name in store if name.startswith(prefix)}
    missing = [n for n, entry in entries.items() if n not in own and not entry.optional]
    patterns = [re.compile(text) for text in ignore]
    unused = [n for n in own if n not in entries and not any(p.fullmatch(n) for p in patterns)]
    wrong = [
        f"{name} {tuple(store[own[name]].shape)} instead of {entry.source_shape}"
        for name, entry in entries.items()
        if name in own and tuple(store[own[name]].shape) != entry.source_shape
    ]
    problems = [("missing", missing), ("unused", unused), ("mis-shaped", wrong)]
    said = [f"{len(names)} {kind}: {_some(names)}" for kind, names in problems if names]
    if said:
        raise CheckpointError("the tensors do not fit the network: " + "; ".join(said))


def _some(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def load_weights(
    store: TensorStore,
    entries: WeightMap,
    prefix: str = "",
    progress: Callable[[int], None] | None = None,
) -> None:
    """Assigns every variable of a map, one array in memory at a time.

    Check with `check_coverage` first: nothing is assigned halfway then.

    Args:
        store: the file.
        entries: the map.
        prefix: of the map's names in the file.
        progress: told the bytes of each array that was read.
    """
    for name, entry in entries.items():
        if entry.optional and prefix + name not in store:
            continue
        array = store.read(prefix + name)
        size = array.nbytes
        array = keras_array(entry, array)
        place(entry.variable, array)
        del array  # before the next one is read
        if progress is not None:
            progress(size)


def keras_array(entry: Entry, array: np.ndarray) -> np.ndarray:
    """The array as the variable wants it: its layout and its type."""
    shape = tuple(entry.variable.shape)
    return np.asarray(entry.transform.to_keras(array, shape), order="C")


def export_weights(entries: WeightMap, dtype: Any = None) -> Iterator[tuple[str, np.ndarray]]:
    """The variables as a file holds them: (name, array), one at a time.

    Args:
        entries: the map.
        dtype: type to write. Defaults to the variable's own.
    """
    import keras

    for name, entry in entries.items():
        values = keras.ops.convert_to_numpy(entry.variable.value)
        values = values if dtype is None else values.astype(dtype)
        yield name, np.asarray(entry.transform.to_source(values), order="C")
