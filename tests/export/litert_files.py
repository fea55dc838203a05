"""Small LiteRT files, written by TensorFlow's converter, and what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dl_techniques.export.litert.litert_precision import apply_settings, converter_settings
from tests.helpers import Array

SHAPE = (8, 8, 3)
CLASSES = 4
NEEDS_TENSORFLOW = "LiteRT files are written by TensorFlow"


def small_weights(seed: int = 0) -> dict[str, Array]:
    """Of a convolution, a depthwise one and a dense layer; each channel has its own scale."""
    rng = np.random.default_rng(seed)
    shapes = {"conv": (3, 3, 3, 64), "depthwise": (3, 3, 64, 1), "head": (64, CLASSES)}
    made = {}
    for name, shape in shapes.items():
        channels = shape[-2] if name == "depthwise" else shape[-1]
        scale = rng.uniform(0.3, 3.0, channels)
        if name == "depthwise":
            scale = scale[:, None]
        fan_in = np.prod(shape[:2] if name == "depthwise" else shape[:-1])
        made[name] = (rng.normal(0, fan_in**-0.5, shape) * scale).astype("float32")
    made["head"][:32] *= 8  # one block of 32 is larger than the other
    return made


def convert(path: Path, precision: str = "float32", calibration: list[Array] | None = None) -> Path:
    """A classifier of `SHAPE` pictures in one precision; two signatures with shared weights."""
    import tensorflow as tf

    weights = {name: tf.Variable(w, name=name) for name, w in small_weights().items()}

    class Network(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.kept = list(weights.values())

        def scores(self, x: Any) -> Any:
            x = tf.nn.relu(tf.nn.conv2d(x, weights["conv"], 2, "SAME", name="conv"))
            x = tf.nn.depthwise_conv2d(x, weights["depthwise"], [1] * 4, "SAME", name="depthwise")
            return tf.matmul(tf.reduce_mean(x, (1, 2)), weights["head"], name="head")

    network = Network()
    signatures = {}
    for name, batch in (("one", 1), ("two", 2)):
        spec = tf.TensorSpec((batch, *SHAPE), tf.float32, name="image")
        function = tf.function(lambda image: {"logits": network.scores(image)})
        signatures[name] = function.get_concrete_function(spec)
    tf.saved_model.save(network, str(path.with_suffix("")), signatures=signatures)
    chosen = ["one"] if precision == "int8_static" else list(signatures)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(path.with_suffix("")), signature_keys=chosen
    )
    apply_settings(converter, converter_settings(precision, calibration))
    path.write_bytes(converter.convert())
    return path


def pictures(count: int = 16) -> list[Array]:
    """float32[1, 8, 8, 3] each, in [0, 1]."""
    rng = np.random.default_rng(1)
    return [rng.uniform(size=(1, *SHAPE)).astype("float32") for _ in range(count)]


def run(path: Path, signature: str = "one") -> Array:
    """The scores of `pictures()`: float32[N, CLASSES]."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner(signature)
    repeat = 2 if signature == "two" else 1
    found = [runner(image=np.repeat(x, repeat, 0))["logits"][:1] for x in pictures()]
    return np.concatenate([np.array(row) for row in found])


def relative_rms(got: Array, expected: Array) -> float:
    """RMS of the difference over the deviation of what is expected."""
    return float(np.sqrt(np.mean((got - expected) ** 2)) / expected.std())


def weight_types(path: Path) -> dict[tuple[int, ...], str]:
    """Shape of each stored kernel -> its type in the words of the file format."""
    from ai_edge_litert import schema_py_generated as schema

    words = {n: w for w, n in vars(schema.TensorType).items() if isinstance(n, int)}
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    return {
        tuple(int(side) for side in tensor.shape): words[tensor.type]
        for graph in model.subgraphs
        for tensor in graph.tensors
        if model.buffers[tensor.buffer].data is not None and np.prod(tensor.shape) > 100
    }
