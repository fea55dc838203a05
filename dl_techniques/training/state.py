"""The state of a training, written by position: everything that the next step depends on.

The variables' places in their lists identify them, for their automatic names differ from run to
run. Path, shape and type stand beside each, and a state of another network is refused.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np

from dl_techniques.checkpoints.folders import replacing_folder
from dl_techniques.checkpoints.tensor_files import TensorInfo, open_tensors
from dl_techniques.checkpoints.tensor_writer import write_safetensors
from dl_techniques.data.files import atomic_writer
from dl_techniques.errors import TrainingError

ARRAYS, POSITION = "state.safetensors", "position.json"
KEPT = 2
_NUMBER = re.compile(r"_\d+(?=[_/]|$)")


@dataclass(frozen=True)
class Position:
    """Where a training stands.

    Attributes:
        step: batches that were learned from.
        seconds: of training, by the clock.
        settings: what the stage was told; a run with other settings does not go on from here.
    """

    step: int = 0
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)


def write_state(folder: Path, variables: Sequence[keras.Variable], position: Position) -> None:
    """Writes variables and position; the folder appears when it is whole.

    Args:
        folder: replaced if it exists.
        variables: in an order that the next run will have too.
        position: of the training.
    """
    named = {f"{place:05d}/{v.path}": v for place, v in enumerate(variables)}
    with replacing_folder(folder) as partial:
        infos = {name: TensorInfo(tuple(v.shape), dtype_of(v)) for name, v in named.items()}
        write_safetensors(partial / ARRAYS, infos, lambda name: as_array(named[name]))
        text = json.dumps(asdict(position), indent=2)
        (partial / POSITION).write_text(text, encoding="utf-8")


def read_state(folder: Path, variables: Sequence[keras.Variable]) -> Position:
    """Gives variables the values of a folder that `write_state` made.

    Raises:
        TrainingError: the folder holds other variables; none is changed then.
        CheckpointError: a damaged file.
    """
    position = read_position(folder)
    with open_tensors(folder / ARRAYS) as store:
        names = list(store)
        if len(names) != len(variables):
            raise TrainingError(
                f"{folder} holds {len(names)} variables of a training, this one has "
                f"{len(variables)}: it belongs to another network or optimizer; take another folder"
            )
        for name, variable in zip(names, variables, strict=True):
            _check(folder, name, store[name], variable)
        for name, variable in zip(names, variables, strict=True):
            variable.assign(store.read(name))
    return position


def read_position(folder: Path) -> Position:
    """The position of a folder that `write_state` made."""
    return Position(**json.loads((folder / POSITION).read_text(encoding="utf-8")))


def saved_states(folder: Path) -> list[Path]:
    """The states below a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / POSITION).is_file())


def keep_state(folder: Path, variables: Sequence[keras.Variable], position: Position) -> None:
    """Writes a state below a folder and removes all but the last two."""
    write_state(folder / f"step-{position.step:010d}", variables, position)
    for old in saved_states(folder)[:-KEPT]:
        shutil.rmtree(old)


def _check(folder: Path, name: str, info: TensorInfo, variable: keras.Variable) -> None:
    """Refuses a variable of another path (automatic numbers aside), shape or type."""
    path = name.split("/", 1)[1]
    wanted = (_NUMBER.sub("", variable.path), tuple(variable.shape), dtype_of(variable))
    if (_NUMBER.sub("", path), info.shape, info.dtype) != wanted:
        raise TrainingError(
            f"{folder}: variable {name.split('/', 1)[0]} is {path} {info.shape} {info.dtype}, "
            f"expected {variable.path} {wanted[1]} {wanted[2]}: it belongs to another network or "
            "optimizer; take another folder"
        )


def dtype_of(variable: keras.Variable) -> np.dtype:
    """A variable's NumPy type."""
    name = keras.backend.standardize_dtype(variable.dtype)
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def as_array(variable: keras.Variable) -> np.ndarray:
    """A variable's value in its own type."""
    value = np.asarray(keras.ops.convert_to_numpy(variable.value))
    return value.astype(dtype_of(variable), copy=False)


class MetricsLog:
    """`metrics.jsonl`: lines of a step and its measurements, none of a step that is taken again.

    Args:
        path: of the file; None keeps nothing.

    Example:
        >>> import tempfile
        >>> log = MetricsLog(Path(tempfile.mkdtemp()) / "metrics.jsonl")
        >>> log.append({"step": 10, "loss": 0.5}), log.append({"step": 20, "loss": 0.25})
        (None, None)
        >>> log.cut(10)
        >>> log.lines()
        [{'step': 10, 'loss': 0.5}]
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def lines(self) -> list[dict[str, Any]]:
        """What was written; a last line that a kill cut short is left out."""
        if self.path is None or not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def append(self, line: dict[str, Any]) -> None:
        """Adds a line."""
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def cut(self, step: int) -> None:
        """Leaves out what was written after a step."""
        if self.path is not None and self.path.is_file():
            kept = [line for line in self.lines() if line["step"] <= step]
            with atomic_writer(self.path) as file:
                file.writelines(json.dumps(line) + "\n" for line in kept)
