"""What a writer is given, and what every writer module has.

A module of this package has three functions:

    write(network, path, job) -> notes     writes `path` (and files beside it, same stem)
    open_file(path, job) -> Runner         runs it in the format's real runtime; None if not here
    runtime() -> str                       name and version of that runtime; None if not here
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from dl_techniques.data.preprocessing import UNIT

if TYPE_CHECKING:
    import keras

Runner = Callable[[np.ndarray], dict[str, np.ndarray]]
"""float32[B, H, W, 3] -> name -> float[B, ...]."""

_MODULES = {
    "litert": "litert_file",
    "onnx": "onnx_file",
    "openvino": "openvino_file",
    "coreml": "coreml_package",
    "saved_model": "saved_model",
    "torch": "torch_program",
}


@dataclass(frozen=True)
class Job:
    """How a network is to be written.

    Attributes:
        precision: of the format's words.
        calibration: float32[1, H, W, 3] each, or None.
        outputs: names of the network's outputs, in order.
        block_size: of int4 weights, see `litert_precision.requantize`; LiteRT only.
        skip: weights to leave alone, see there; LiteRT only.
        pixels: what the input's pixels lie in, "[0, 1]" or "[0, 255]"; written into the file where
            the format has room for such words.
    """

    precision: str
    calibration: Sequence[np.ndarray] | None
    outputs: tuple[str, ...]
    block_size: int | None = None
    skip: tuple[str, ...] = ()
    pixels: str = UNIT

    @property
    def input_words(self) -> str:
        """What the input is, for the file's own description."""
        return f"RGB in {self.pixels}"


class Writer(Protocol):
    """The functions of a writer module."""

    def write(self, network: keras.Model, path: Path, job: Job) -> Sequence[str]:
        """Writes the file; returns notes for the user."""

    def open_file(self, path: Path, job: Job) -> Runner | None:
        """A function that runs the file."""

    def runtime(self) -> str | None:
        """What runs the file."""


def writer_of(format_name: str) -> Writer:
    """The module that writes a format."""
    name = f"dl_techniques.export.writers.{_MODULES[format_name]}"
    return cast(Writer, importlib.import_module(name))
