"""ONNX: by tf2onnx from the TensorFlow graph, checked in onnxruntime."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dl_techniques.errors import ExportError
from dl_techniques.export.writers import saved_model
from dl_techniques.export.writers.job import Job, Runner

OPSET = 18
LARGEST = 2**31 - 1  # of one protobuf message


def write(network: Any, path: Path, job: Job) -> Sequence[str]:
    """Converts, and casts to float16 inside if asked for; inputs and outputs stay float32.

    Raises:
        ExportError: the network is larger than one ONNX file can be, or ONNX finds the file wrong.
    """
    import onnx

    if 4 * network.count_params() > LARGEST:
        raise ExportError("a network of more than 2 GB fits no single ONNX file; use openvino")
    model = convert(network)
    if job.precision == "float16":
        model = as_float16(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return (f"ONNX opset {OPSET}",)


def convert(network: Any) -> Any:
    """The `ModelProto` of a network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tf2onnx about NumPy's newer names
        # tf2onnx 1.17 predates NumPy 2; Keras carries the two corrections that it needs.
        from keras.src.export.tf2onnx_lib import patch_tf2onnx

        patch_tf2onnx()
        import tf2onnx

        function = saved_model.as_function(network)
        model, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=OPSET)
    return model


def as_float16(model: Any) -> Any:
    """The same `ModelProto` with float16 inside; the casts stand at both ends."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
    half.topological_sort()  # the casts were put at the end of the list
    return half.model


def open_file(path: Path, job: Job) -> Runner:
    """The file in onnxruntime on this CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(pictures: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {"image": pictures}), strict=True))

    return run


def runtime() -> str:
    """The version of onnxruntime."""
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"
