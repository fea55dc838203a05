"""One result of a run as a small JSON file, from which the table is made."""

from __future__ import annotations

import datetime
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dl_techniques.compression.optimization.measure import LiteRTClassifier, accuracy
from dl_techniques.data.files import atomic_writer
from dl_techniques.evaluation.report import machine
from recipes.cifar10 import data


@dataclass(frozen=True)
class Result:
    """What one command gave.

    Attributes:
        name: of the row.
        step: "quantize", "prune", "qat", "distil" or "baseline".
        file: the `.tflite` file, beside this result.
        bytes: of that file.
        accuracy: share of the test pictures that the file classifies right in LiteRT.
        milliseconds: median time of a picture in LiteRT with one thread.
        parameters: weights of the Keras network in the form that was exported.
        pictures: number of test pictures.
        epochs: of training in this run; 0 for none.
        seconds: of training in this run.
        command: that gave it.
        date: when, UTC.
        machine: processor, cores and versions.
    """

    name: str
    step: str
    file: str
    bytes: int
    accuracy: float
    milliseconds: float
    parameters: int
    pictures: int
    epochs: int
    seconds: float
    command: str
    date: str
    machine: dict[str, Any]


def measure(
    path: Path, name: str, step: str, test: tuple[np.ndarray, np.ndarray], parameters: int,
    epochs: int = 0, seconds: float = 0.0,
) -> Result:  # fmt: skip
    """Runs a file on the test pictures, times it, and writes the result beside it.

    Args:
        path: a `.tflite` classifier.
        name: of the row.
        step: of the table.
        test: pictures uint8[N, H, W, 3] and labels int32[N].
        parameters: weights of the Keras network.
        epochs: of training in this run.
        seconds: of training in this run.
    """
    runner = LiteRTClassifier(path)
    logits = runner.predict(data.as_floats(test[0]))
    result = Result(
        name=name,
        step=step,
        file=path.name,
        bytes=path.stat().st_size,
        accuracy=accuracy(logits, test[1]),
        milliseconds=runner.milliseconds(),
        parameters=parameters,
        pictures=len(test[1]),
        epochs=epochs,
        seconds=seconds,
        command=command_line(sys.argv),
        date=now(),
        machine=machine(),
    )
    write(path.parent, result)
    print(f"{name}: {result.bytes} bytes, {100 * result.accuracy:.2f} %", flush=True)
    return result


def command_line(argv: Sequence[str]) -> str:
    """The command as it can be typed again; folders are named by what they hold.

    Args:
        argv: of the process.
    """
    places = {"--data": "CIFAR", "--work": "WORK"}
    folders = {argv[i + 1]: places[word] for i, word in enumerate(argv) if word in places}
    words = list(argv[1:])
    for folder in sorted(folders, key=len, reverse=True):  # one may lie in the other
        words = [w.replace(folder, folders[folder], 1) for w in words]
    return "python -m " + shlex.join([f"recipes.cifar10.{Path(argv[0]).stem}", *words])


def now() -> str:
    """The time in UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes")


def write(work: Path, result: Result) -> None:
    """Writes `FILE.json`."""
    with atomic_writer(work / f"{Path(result.file).stem}.json") as file:
        json.dump(asdict(result), file, indent=2)


def read_all(work: Path) -> list[Result]:
    """All results of a folder.

    Raises:
        FileNotFoundError: there is none.
    """
    found = [Result(**json.loads(p.read_text(encoding="utf-8"))) for p in work.glob("*.json")]
    if not found:
        raise FileNotFoundError(f"no results in {work}; run the commands of recipes/cifar10 first")
    return sorted(found, key=lambda result: (result.date, result.name))


def with_time(result: Result, milliseconds: float) -> Result:
    """The same result with another time, and the machine it was taken on."""
    return replace(result, milliseconds=milliseconds, machine=machine())


def parameters_of(model: keras.Model) -> int:
    """Weights of a network in its folded form, which is what the file holds."""
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    copy.reparameterize(fold=True)
    return int(copy.count_params())
