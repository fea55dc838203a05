"""From a quantization-aware network to a LiteRT file with true int8 kernels.

The rounding of activations is written as TensorFlow's own fake-quantization operators, which the
converter reads as ranges; kernels are written as constants that lie on their grid, from which it
finds the very same int8 numbers and scales. No calibration takes place: the trained ranges hold.

What the file computes differs from the trained network in three ways, each by one step of some
grid at most: the integer kernels round products that lie halfway another way, biases are int32,
and a mean of rounded activations is rounded again. One step in a feature map changes what comes
after it, so whole networks are compared by the RMS of the difference.

Two silent errors of TensorFlow 2.21's converter are stepped around: per-channel fake-quantization
operators on a dense layer's kernel do not convert, and a bias whose entries are all equal is
quantized wrongly (an output of a dense layer was off by six steps).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques.errors import CompressionError, ExportError
from dl_techniques.export.gates import refuse_failed
from dl_techniques.export.litert.litert_operators import refuse_foreign_operators, stored_types
from dl_techniques.export.networks import resolve_part
from dl_techniques.export.pictures import COMPARED, compared_on
from dl_techniques.export.report import Check, ExportReport, compare_arrays
from dl_techniques.export.staging import check_target, staged
from dl_techniques.export.subject import PIXELS, make_subject
from dl_techniques.export.writers import litert_file, saved_model
from dl_techniques.export.writers.job import Job
from dl_techniques.layers.quantized.fake_quant import (
    ActivationQuantizer,
    Arithmetic,
    computed_by,
    fake_quantize_kernel,
)
from dl_techniques.layers.quantized.fake_quant_layers import fake_quantized

GATE = 0.1
"""Largest RMS of the difference over the output's standard deviation. Random networks, which
amplify a step most, stay below 0.03; a range that went wrong gives 0.3 and more."""
PRECISION = "int8_trained"
_FORMAT_PRECISION = "int8"


def export_quantized(
    model: keras.Model,
    path: str | Path,
    *,
    part: str = "auto",
    image_size: int | None = None,
    pictures: str | Path | None = None,
    overwrite: bool = False,
    gate: float = GATE,
) -> ExportReport:
    """Writes a quantization-aware network as a LiteRT file of int8 kernels, and compares the two.

    Needs the TensorFlow backend; a network that was trained on another is loaded there first. The
    file takes `image`, float32[1, H, W, 3], RGB in [0, 1], or 0..255 as the network does.

    Args:
        model: a FastVLM or MobileOne from `quantization_aware`, calibrated or trained.
        path: ends in `.tflite`.
        part: "classifier", "features", "encoder", or "auto". Defaults to "auto".
        image_size: side in pixels. Defaults to the network's own.
        pictures: folder with pictures to compare on. Defaults to the shipped photographs.
        overwrite: replace what stands there, once the new file has passed.
        gate: see `GATE`.

    Returns:
        Sizes, checks and the layers that became int8 kernels.

    Raises:
        CompressionError: another backend, no quantization, fewer than 8 bits, weights only, or
            ranges that nothing has set.
        ExportError: a kernel that did not become int8, or a file that computes something else.

    Example:
        >>> report = export_quantized(learner, "net.tflite")  # doctest: +SKIP
        >>> report.checks[0].rms < 0.1  # doctest: +SKIP
        True
    """
    check_exportable(model)
    target = Path(path)
    check_target(target, ".tflite", is_folder=False, overwrite=overwrite)
    part = resolve_part(model, part, ("classifier", "features", "encoder"))
    subject = make_subject(model, part, image_size, dynamic_batch=False)
    inputs = subject.inputs(pictures, COMPARED)
    with staged(target) as file:
        kernels = write(subject.deployed, file)
        run = litert_file.open_file(file, _job(subject.deployed))
        expected, results = subject.expected(inputs), [run(image) for image in inputs]
        checks = tuple(
            compare_arrays(name, v, np.concatenate([r[name] for r in results]), gate, measure="rms")
            for name, v in expected.items()
        )
        refuse_failed(checks, target.name)
        size = file.stat().st_size
        stored = ", ".join(f"{n} bytes of {name}" for name, n in stored_types(file).items())
    height, width = subject.size
    words = PIXELS.format(batch=1, height=height, width=width, pixels=subject.pixels)
    compared = compared_on(pictures, len(inputs))
    notes = (words, f"{kernels} int8 kernels", f"constants: {stored}", compared)
    return _report(target, part, size, checks, notes)


def _report(
    target: Path, part: str, size: int, checks: tuple[Check, ...], notes: tuple[str, ...]
) -> ExportReport:
    return ExportReport(
        format="litert",
        part=part,
        precision=PRECISION,
        path=str(target),
        files={target.name: size},
        runtime=litert_file.runtime(),
        checks=checks,
        notes=notes,
    )


def check_exportable(model: keras.Model) -> None:
    """Refuses a model that cannot become a file of int8 kernels.

    Raises:
        CompressionError: the model, or this process, cannot do it.
    """
    layers = fake_quantized(model)
    if keras.backend.backend() != "tensorflow":
        raise CompressionError(
            f"int8 kernels are written on the TensorFlow backend, this is {keras.backend.backend()}"
            ": save the network and load it in a process with KERAS_BACKEND=tensorflow"
        )
    for path, layer in layers:
        if layer.scheme["bits"] != 8:
            raise CompressionError(f"{path} was trained with {layer.scheme['bits']} bits, not 8")
        if not layer.scheme["outputs"]:
            raise CompressionError(
                f"{path} rounds its weights only; export the network with precision int8 instead"
            )
        for quantizer in layer.quantizers:
            if not quantizer.known:
                raise CompressionError(
                    f"{path} has no range for its activations yet: calibrate the model, or train it"
                )


def write(network: keras.Model, path: Path) -> int:
    """Converts a network that rounds; returns the number of int8 kernels in the file.

    Args:
        network: functional, with named outputs, `image` in; fixed batch.
        path: where to write.

    Raises:
        ExportError: an operator that is not built in, or a layer that stayed in float.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        with computed_by(_ForLiteRT()), _uneven_biases(network):
            saved_model.write(network, Path(folder) / "model", _job(network))
        path.write_bytes(litert_file.convert(Path(folder) / "model", _job(network)))
    refuse_foreign_operators(path)
    kernels, layers = int8_kernels(path), len(fake_quantized(network))
    if kernels < layers:
        raise ExportError(
            f"only {kernels} of {layers} layers became int8 kernels in {path.name}; no file is kept"
        )
    return kernels


def _job(network: keras.Model) -> Job:
    """The converter's setting without pictures: it takes the ranges of the operators."""
    return Job(_FORMAT_PRECISION, None, tuple(network.output))


class _ForLiteRT(Arithmetic):
    """Writes what the converter understands, in place of the arithmetic."""

    def kernel(self, kernel: Any, axes: tuple[int, ...], bits: int) -> Any:
        """The rounded kernel as a constant."""
        import tensorflow as tf

        with tf.init_scope():
            return tf.constant(ops.convert_to_numpy(fake_quantize_kernel(kernel, axes, bits)))

    def activations(self, quantizer: ActivationQuantizer, inputs: Any, training: bool) -> Any:
        """TensorFlow's operator, with the range as its attributes."""
        import tensorflow as tf

        with tf.init_scope():
            low, high = float(quantizer.low), float(quantizer.high)
        return tf.quantization.fake_quant_with_min_max_args(inputs, low, high, quantizer.bits)


@contextmanager
def _uneven_biases(network: keras.Model) -> Iterator[None]:
    """Moves one entry of every bias whose entries are all equal to the next float, for a while."""
    changed = []
    for _, layer in fake_quantized(network):
        bias = layer.bias
        values = None if bias is None else np.array(ops.convert_to_numpy(bias))
        if values is not None and values.size > 1 and values[0] != 0 and np.ptp(values) == 0:
            changed.append((bias, values))
            bias.assign(np.concatenate([np.nextafter(values[:1], np.inf), values[1:]]))
    try:
        yield
    finally:
        for bias, values in changed:
            bias.assign(values)


def int8_kernels(path: str | Path) -> int:
    """How many convolutions and dense layers of a LiteRT file have int8 inputs and int8 weights."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(Path(path).read_bytes(), 0)
    words = schema.BuiltinOperator
    kernels = (words.CONV_2D, words.DEPTHWISE_CONV_2D, words.FULLY_CONNECTED)
    count = 0
    for graph in (model.Subgraphs(i) for i in range(model.SubgraphsLength())):
        for operator in (graph.Operators(i) for i in range(graph.OperatorsLength())):
            code = model.OperatorCodes(operator.OpcodeIndex())
            if max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) in kernels:
                types = {graph.Tensors(operator.Inputs(i)).Type() for i in (0, 1)}
                types.add(graph.Tensors(operator.Outputs(0)).Type())
                count += types == {schema.TensorType.INT8}
    return count
