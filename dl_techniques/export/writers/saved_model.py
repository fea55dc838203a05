"""TensorFlow SavedModel, also the way by which LiteRT, ONNX and OpenVINO files are made."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dl_techniques.export.writers.job import Job, Runner

if TYPE_CHECKING:
    import keras

SIGNATURE = "serving_default"


def as_function(network: keras.Model, weights: Mapping[str, Any] | None = None) -> Any:
    """A `tf.function` of a network whose inputs and outputs keep their names.

    Args:
        network: the network.
        weights: float32 variables of it that become inputs behind the picture, by name.
    """
    import keras
    import tensorflow as tf

    (image,), weights = network.inputs, weights or {}
    specs = [tf.TensorSpec(image.shape, tf.float32, name=image.name)]
    specs += [tf.TensorSpec(v.shape, tf.float32, name=name) for name, v in weights.items()]

    @tf.function(input_signature=specs)
    def run(image: Any, *values: Any) -> Any:
        given = list(zip(weights.values(), values, strict=True))
        with keras.StatelessScope(given) if given else contextlib.nullcontext():
            return network(image, training=False)

    return run


def write(network: keras.Model, path: Path, job: Job) -> Sequence[str]:
    """Writes a folder with the signature `serving_default`: image -> named outputs."""
    import tensorflow as tf

    module = tf.Module()
    module.run = as_function(network)
    module.weights = [variable.value for variable in network.variables]
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: module.run})
    extra = path / "assets.extra"  # TensorFlow leaves it alone
    extra.mkdir()
    (extra / "image.txt").write_text(job.input_words, encoding="utf-8")
    return ()


def open_file(path: Path, job: Job) -> Runner:
    """The folder, loaded anew, without Keras."""
    import tensorflow as tf

    # The signature alone does not keep the variables alive.
    loaded = tf.saved_model.load(str(path))

    def run(pictures: np.ndarray) -> dict[str, np.ndarray]:
        outputs = loaded.signatures[SIGNATURE](image=tf.constant(pictures))
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def runtime() -> str:
    """The version of TensorFlow."""
    import tensorflow as tf

    return f"tensorflow {tf.__version__}"
