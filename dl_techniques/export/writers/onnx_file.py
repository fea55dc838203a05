"""ONNX: by tf2onnx from the TensorFlow graph, checked in onnxruntime."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dl_techniques.compat.exporters import correct_tf2onnx
from dl_techniques.errors import ExportError
from dl_techniques.export.writers import saved_model
from dl_techniques.export.writers.job import Job, Runner
from dl_techniques.export.writers.onnx_graph import merge_pads, spell_gelus
from dl_techniques.layers.conv_ffn import dense_as_convolutions

if TYPE_CHECKING:
    import keras

OPSET = 18
LARGEST = 2**31 - 1  # of one protobuf message
FEW = 1024  # numbers; smaller weights go through the converters as constants


def write(network: keras.Model, path: Path, job: Job) -> Sequence[str]:
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
    onnx.helper.set_model_props(model, {"image": job.input_words})
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return (f"ONNX opset {OPSET}",)


def convert(network: keras.Model) -> Any:
    """The `ModelProto` of a network.

    TensorFlow's freezing and tf2onnx copy a graph with all its constants many times over, more than
    twenty times their size. So the large weights pass through as inputs, and enter the finished
    graph.
    """
    from onnx.numpy_helper import from_array

    weights = {f"weight_{i}": v for i, v in enumerate(network.variables) if is_large(v)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tf2onnx about NumPy's newer names
        correct_tf2onnx()
        import tf2onnx

        function = saved_model.as_function(network, weights)
        with dense_as_convolutions():
            model, _ = tf2onnx.convert.from_function(
                function, function.input_signature, opset=OPSET
            )
    images = [given for given in model.graph.input if given.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(images)
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        from_array(variable.numpy(), name) for name, variable in weights.items() if name in used
    )
    fold_weights(model.graph, set(weights))
    merge_pads(model.graph)
    spell_gelus(model.graph)
    return model


def is_large(variable: keras.Variable) -> bool:
    """Whether a variable is a float32 weight that is better kept out of the converters."""
    return bool(variable.dtype == "float32" and np.prod(variable.shape) > FEW)


def fold_weights(graph: Any, names: set[str]) -> None:
    """Computes what depends on the named initializers and other constants alone, in place.

    These are the transpositions and reshapes of kernels into ONNX' layout.
    """
    from onnx.numpy_helper import from_array, to_array
    from onnx.reference import ReferenceEvaluator

    constants = {tensor.name: tensor for tensor in graph.initializer}
    touched, kept = set(names), []
    for node in graph.node:
        needed = [name for name in node.input if name]
        known = bool(needed) and all(name in constants for name in needed)
        if not known or touched.isdisjoint(needed):
            kept.append(node)
            continue
        values = {name: to_array(constants[name]) for name in needed}
        for name, value in zip(
            node.output, ReferenceEvaluator(node).run(None, values), strict=True
        ):
            constants[name] = from_array(np.ascontiguousarray(value), name)
            touched.add(name)
    used = {name for node in kept for name in node.input}
    used |= {output.name for output in graph.output}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensor for name, tensor in constants.items() if name in used)


def as_float16(model: keras.Model) -> Any:
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
