"""OpenVINO: `NAME.xml` and `NAME.bin`, from the TensorFlow graph, checked in OpenVINO."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dl_techniques.export.writers import saved_model
from dl_techniques.export.writers.job import Job, Runner
from dl_techniques.layers.conv_ffn import dense_as_convolutions

if TYPE_CHECKING:
    import keras


def write(network: keras.Model, path: Path, job: Job) -> Sequence[str]:
    """Converts; `float16` means that the weights are stored so."""
    import openvino

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        with dense_as_convolutions():
            saved_model.write(network, Path(folder) / "model", job)
        model = openvino.convert_model(str(Path(folder) / "model"))
        model.set_rt_info(job.input_words, ["image"])
        openvino.save_model(model, str(path), compress_to_fp16=job.precision == "float16")
    notes = [f"the weights are in {path.stem}.bin, which must stay beside {path.name}"]
    if job.precision == "float16":
        notes.append("float16 weights; checked in float32 arithmetic, the hint for a CPU")
    return notes


def open_file(path: Path, job: Job) -> Runner:
    """The file on this CPU, in float32 arithmetic."""
    import openvino

    core = openvino.Core()
    # Without the hint a CPU that has bfloat16 takes it, which is not what the file says.
    compiled = core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(pictures: np.ndarray) -> dict[str, np.ndarray]:
        outputs = compiled({"image": pictures})
        return {name: np.array(outputs[name]) for name in job.outputs}

    return run


def runtime() -> str:
    """The version of OpenVINO."""
    import openvino

    return f"openvino {openvino.__version__.split('-')[0]}"
