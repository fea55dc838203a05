"""Files of int8 kernels that compute what the trained, rounding network computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.compression.quantization_aware import (
    calibrate,
    fake_quantized,
    quantization_aware,
)
from dl_techniques.errors import CompressionError, ExportError
from dl_techniques.export.writers.job import Job
from dl_techniques.export.writers.litert_file import open_file
from dl_techniques.export.writers.litert_trained import (
    export_quantized,
    int8_kernels,
    write,
)
from dl_techniques.layers.convolution import Conv, DepthwiseConv
from tests.compression.test_quantization_aware import make_mobile_one
from tests.helpers import numbers, random_array, randomize
from tests.models.vision.fast_vlm.small_network import make_smaller_network, pictures

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="int8 kernels are written on TensorFlow"
)


def make_learner(network: Any) -> Any:
    """Calibrated on pictures in [0, 1], with one bias whose entries are all equal."""
    learner = quantization_aware(network)
    layers = [layer for _, layer in fake_quantized(learner)]
    layers[-1].bias.assign(np.full(layers[-1].bias.shape, 0.1, "float32"))
    calibrate(learner, 0.5 + 0.5 * pictures(8))
    return learner


@on_tensorflow
@pytest.mark.parametrize("kind", ["fast_vlm", "mobile_one"])
def test_the_file_computes_what_the_network_computes(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    network = make_mobile_one() if kind == "mobile_one" else make_smaller_network(use_se=True)
    learner = make_learner(network)
    report = export_quantized(learner, tmp_path / "net.tflite")
    (check,) = report.checks
    # Integer kernels round halves another way, and means and sigmoids once more: a few steps of
    # 255 after a dozen layers of random weights. A wrong range or scale makes it 0.3 and more.
    assert check.rms is not None and check.rms < 0.05
    assert int8_kernels(tmp_path / "net.tflite") == len(fake_quantized(learner))
    assert not [path for path in tmp_path.iterdir() if path.name != "net.tflite"]
    bias = fake_quantized(learner)[-1][1].bias
    np.testing.assert_array_equal(bias, np.full(bias.shape, 0.1, "float32"))


@on_tensorflow
def test_one_layer_is_exact_but_for_halves(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    for layer in (
        Conv(8, 3, strides=2),
        DepthwiseConv(7, depth_multiplier=2),
        keras.layers.Dense(8),
    ):
        image = keras.Input((12, 12, 4), batch_size=1, name="image")
        model = keras.Model(image, {"map": layer(image)})
        randomize(model)
        learner = quantization_aware(model)
        x = random_array(1, 12, 12, 4)
        calibrate(learner, x)
        assert write(learner, tmp_path / "layer.tflite") == 1
        got = open_file(tmp_path / "layer.tflite", Job("int8", None, ("map",)))(x)["map"]
        (_, rounding) = fake_quantized(learner)[0]
        outputs = rounding.outputs_quantizer
        steps = np.abs(got - numbers(learner(x)["map"])) / (float(outputs.high - outputs.low) / 255)
        assert np.mean(steps > 0.01) < 0.01 and steps.max() < 1.01


@on_tensorflow
def test_what_cannot_be_exported_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "net.tflite"
    target.write_bytes(b"old")
    network = make_smaller_network()
    uncalibrated, fewer = quantization_aware(network), quantization_aware(network, bits=4)
    weights_only = quantization_aware(network, activations=False)
    for model, words in (
        (network, "quantization_aware"),
        (uncalibrated, "calibrate"),
        (fewer, "4 bits"),
        (weights_only, "precision int8"),
    ):
        with pytest.raises(CompressionError, match=words) as caught:
            export_quantized(model, target, overwrite=True)
        assert "\n" not in str(caught.value)
    calibrate(uncalibrated, 0.5 + 0.5 * pictures(2))
    with pytest.raises(ExportError, match="exists"):
        export_quantized(uncalibrated, target)
    with pytest.raises(ExportError, match="beyond its gate"):
        export_quantized(uncalibrated, target, overwrite=True, gate=1e-9)
    assert target.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow can")
def test_other_backends_say_how_to_go_on() -> None:
    with pytest.raises(CompressionError, match="KERAS_BACKEND=tensorflow"):
        export_quantized(quantization_aware(make_smaller_network()), "net.tflite")
