"""Networks and layers that train with rounding."""

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
from dl_techniques.errors import CompressionError, FusionError
from dl_techniques.layers.quantized.fake_quant import fake_quantize, fake_quantize_kernel
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vision.mobile_one.model import MobileOne
from tests.helpers import (
    check_torch_parameters,
    numbers,
    random_array,
    randomize,
    relative_difference,
    values,
)
from tests.models.vision.fast_vlm.small_network import make_smaller_network, pictures


def make_learner(**options: Any) -> FastVLM:
    """A calibrated two-stage network, dense layers of squeeze-and-excitation included."""
    learner = quantization_aware(make_smaller_network(use_se=True, **options))
    calibrate(learner, pictures(4))
    return learner


def make_mobile_one() -> MobileOne:
    """Blocks with ReLU, the last with squeeze-and-excitation."""
    network = MobileOne(5, (8, 16), (1, 1), 8, se_depths=(0, 1), input_shape=(32, 32, 3))
    randomize(network)
    return network


def make_plain() -> keras.Model:
    """Layers of Keras only, with every kind of activation."""
    layers = keras.layers
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv")(image)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="gelu", name="depthwise")(x)
    x = layers.GlobalAveragePooling2D()(layers.BatchNormalization(name="norm")(x))
    outputs = layers.Dense(4, activation="softmax", name="dense")(x)
    model = keras.Model(image, outputs, name="plain")
    randomize(model)
    return model


@pytest.fixture(scope="module")
def learner() -> FastVLM:
    return make_learner()


def test_every_convolution_and_dense_layer_rounds(learner: FastVLM) -> None:
    kinds = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)
    able = [x for x in learner._flatten_layers(recursive=True) if isinstance(x, kinds)]
    layers = dict(fake_quantized(learner))
    assert {id(x) for x in able} == {id(x) for x in layers.values()} and len(able) == 18
    assert all(layer.bias is not None for layer in layers.values())
    norms = [x for x in learner._flatten_layers() if "Normalization" in type(x).__name__]
    assert learner.folded and not norms


def test_inputs_that_come_rounded_are_not_rounded_again(learner: FastVLM) -> None:
    layers = dict(fake_quantized(learner))
    assert not layers["stage_1/block_0/conv_ffn/folded_conv"].scheme["inputs"]
    assert not layers["stage_1/block_0/conv_ffn/fc1"].scheme["inputs"]
    assert layers["stage_1/block_0/conv_ffn/fc2"].scheme["inputs"]  # a GELU lies between
    assert layers["stage_2/block_0/conv_ffn/folded_conv"].scheme["inputs"]  # a residual sum


def test_a_layer_computes_between_roundings(learner: FastVLM) -> None:
    layer = dict(fake_quantized(learner))["head"]
    x = random_array(3, layer.float_kernel.shape[0])
    inputs, outputs = layer.inputs_quantizer, layer.outputs_quantizer
    rounded = numbers(fake_quantize(x, inputs.low, inputs.high))
    kernel = numbers(fake_quantize_kernel(layer.float_kernel, (0,)))
    expected = (rounded @ kernel + numbers(layer.bias)).astype("float32")
    expected = numbers(fake_quantize(expected, outputs.low, outputs.high))
    step = (numbers(outputs.high) - numbers(outputs.low)) / 255
    off = np.abs(numbers(layer(x)) - expected)
    assert np.mean(off < 1e-3 * step) > 0.8 and off.max() < 1.01 * step


def test_it_is_near_the_float_network_and_leaves_that_alone() -> None:
    network, x = make_smaller_network(), pictures(4)
    before, expected = values(network), numbers(network(x))
    learner = quantization_aware(network)
    calibrate(learner, x)
    assert 1e-4 < relative_difference(learner(x), expected) < 0.15
    for now, then in zip(values(network), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert network.quantization is None and not network.reparameterized


@pytest.mark.slow_on_jax
def test_one_step_of_training_moves_weights_and_ranges() -> None:
    learner = make_learner()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    learner.compile(keras.optimizers.SGD(0.05), loss, jit_compile=False)
    before = {v.path: numbers(v) for v in learner.variables}
    learner.fit(1.5 * pictures(4), np.arange(4), verbose=0)
    moved = {v.path for v in learner.variables if not np.array_equal(numbers(v), before[v.path])}
    still = {path for path in before if path not in moved}
    weights = {v.path for v in learner.trainable_variables}
    assert weights <= moved
    # Some minima stay: 0 behind a ReLU, -0.17 behind a GELU.
    assert {path.rpartition("/")[2] for path in still} <= {"low"}, still
    assert relative_difference(learner.predict(pictures(2), verbose=0), learner(pictures(2))) < 1e-4


def test_files_and_presets_keep_the_rounding(learner: FastVLM, tmp_path: Path) -> None:
    x = pictures(2)
    expected = numbers(learner(x))
    learner.save(tmp_path / "learner.keras")
    learner.save_to_preset(tmp_path / "preset")
    for path in (tmp_path / "learner.keras", tmp_path / "preset"):
        loaded = FastVLM.from_preset(path)
        assert loaded.quantization == learner.quantization
        np.testing.assert_allclose(numbers(loaded(x)), expected, atol=1e-6)
        check_torch_parameters(loaded)


def test_branches_do_not_come_back_and_fusing_again_is_harmless(learner: FastVLM) -> None:
    weights = len(learner.weights)
    learner.reparameterize(fold=True)
    assert len(learner.weights) == weights
    with pytest.raises(FusionError, match="quantized"):
        learner.reset_reparameterization()


@pytest.mark.once
def test_a_relu_of_a_block_is_rounded_with_its_convolution() -> None:
    network, x = make_mobile_one(), pictures(4)
    learner = quantization_aware(network)
    calibrate(learner, x)
    assert relative_difference(learner(x), network(x)) < 0.15
    stem = learner.stem.fused_conv
    assert float(stem.outputs_quantizer.low) == 0.0 and float(stem.outputs_quantizer.high) > 0
    gated = dict(fake_quantized(learner))["stage_2/pointwise_0/fused_conv"]
    assert float(gated.outputs_quantizer.low) < 0  # here the ReLU comes after the gates
    copy = type(learner).from_config(learner.get_config())
    copy.set_weights(learner.get_weights())
    np.testing.assert_allclose(numbers(copy(x)), numbers(learner(x)), atol=1e-6)


@pytest.mark.once
def test_plain_keras_networks_round_too(tmp_path: Path) -> None:
    model, x = make_plain(), random_array(4, 16, 16, 3)
    learner = quantization_aware(model)
    calibrate(learner, x)
    assert [path for path, _ in fake_quantized(learner)] == ["conv", "depthwise", "dense"]
    expected = numbers(learner(x))
    assert relative_difference(expected, model(x)) < 0.05
    learner.save(tmp_path / "plain.keras")
    loaded = keras.saving.load_model(tmp_path / "plain.keras")
    np.testing.assert_allclose(numbers(loaded(x)), expected, atol=1e-6)
    assert loaded.get_layer("dense").get_config()["activation"] == "softmax"


def test_layers_can_be_left_alone_and_weights_rounded_only() -> None:
    network = make_smaller_network()
    learner = quantization_aware(network, skip=["^head$", "attention"], activations=False)
    paths = [path for path, _ in fake_quantized(learner)]
    assert "head" not in paths and not any("attention" in path for path in paths)
    assert type(learner.head[-1]) is keras.layers.Dense
    assert not [v for v in learner.variables if v.name in ("low", "high")]
    assert 1e-4 < relative_difference(learner(pictures(2)), network(pictures(2))) < 0.1


@pytest.mark.once
def test_calibration_takes_batches_and_finds_the_extremes(learner: FastVLM) -> None:
    batches, x = quantization_aware(make_smaller_network(use_se=True)), pictures(4)
    calibrate(batches, [(x[:1], 0), (x[1:], 0)])
    for (_, one), (_, other) in zip(fake_quantized(learner), fake_quantized(batches), strict=True):
        for left, right in zip(one.quantizers, other.quantizers, strict=True):
            np.testing.assert_allclose(numbers(left.low), numbers(right.low), atol=1e-5)
            np.testing.assert_allclose(numbers(left.high), numbers(right.high), atol=1e-5)


def test_what_cannot_be_done_is_one_line(learner: FastVLM) -> None:
    network = make_smaller_network()
    for call, words in (
        (lambda: quantization_aware(network, bits=9), "bits"),
        (lambda: quantization_aware(network, skip=["nothing_like_this"]), "finds none"),
        (lambda: quantization_aware(network, skip=["("]), "regular expression"),
        (lambda: quantization_aware(learner), "already"),
        (lambda: calibrate(network, pictures(1)), "quantization_aware"),
        (lambda: calibrate(learner, []), "pictures"),
        (lambda: calibrate(learner, np.full((1, 32, 32, 3), np.nan, "float32")), "not finite"),
    ):
        with pytest.raises(CompressionError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
