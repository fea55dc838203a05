"""LiteRT (`.tflite`): built-in operators only, checked in ai-edge-litert."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dl_techniques.compat.exporters import converter_error
from dl_techniques.errors import ExportError
from dl_techniques.export.litert import litert_precision
from dl_techniques.export.litert.litert_operators import refuse_foreign_operators, stored_types
from dl_techniques.export.writers import saved_model
from dl_techniques.export.writers.job import Job, Runner

if TYPE_CHECKING:
    import keras


def write(network: keras.Model, path: Path, job: Job) -> Sequence[str]:
    """Converts, quantizes if asked for, and looks at the operators.

    Raises:
        ExportError: an operator that is not built in.
        CompressionError: weights or calibration pictures that do not allow the precision.
    """
    notes = []
    if job.precision == "float16":
        weights = [np.asarray(value) for value in network.get_weights()]
        notes.append(litert_precision.float16_note(weights))
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        saved_model.write(network, Path(folder) / "model", job)
        path.write_bytes(convert(Path(folder) / "model", job))
    if by_quantizer(job):
        litert_precision.requantize(
            path, path, job.precision, block_size=job.block_size, skip=job.skip
        )
    operators = refuse_foreign_operators(path)
    notes.append(f"built-in operators only: {', '.join(operators)}")
    stored = ", ".join(f"{size} bytes of {name}" for name, size in stored_types(path).items())
    notes.append(f"constants: {stored}")
    return notes


def by_quantizer(job: Job) -> bool:
    """Whether the weights are quantized in the finished file: the converter takes them all."""
    chosen = job.block_size is not None or bool(job.skip)
    return chosen or job.precision not in litert_precision.BY_CONVERTER


def convert(folder: Path, job: Job) -> bytes:
    """A SavedModel as the bytes of a LiteRT file.

    Raises:
        ExportError: the network needs operators that LiteRT has not.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder), signature_keys=[saved_model.SIGNATURE]
    )
    precision = "float32" if by_quantizer(job) else job.precision
    settings = litert_precision.converter_settings(precision, job.calibration)
    litert_precision.apply_settings(converter, settings)
    try:
        return bytes(converter.convert())
    except converter_error() as error:
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"LiteRT's converter refuses the network: {reason}") from error


def open_file(path: Path, job: Job) -> Runner:
    """The file in the interpreter that phones have, on this CPU."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    signature = interpreter.get_signature_runner(saved_model.SIGNATURE)

    def run(pictures: np.ndarray) -> dict[str, np.ndarray]:
        # The arrays are views of the interpreter's memory, which the next run overwrites.
        return {name: np.array(value) for name, value in signature(image=pictures).items()}

    return run


def runtime() -> str:
    """The version of the interpreter."""
    return f"ai-edge-litert {version('ai-edge-litert')}"
