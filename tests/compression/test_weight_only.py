"""int8 kernels after training: smaller files, near the float network, on every backend."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques.compression.weight_only import quantize_weights
from dl_techniques.errors import CompressionError, FusionError
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from tests.compression.test_quantization_aware import make_plain
from tests.helpers import check_torch_parameters, numbers, random_array, relative_difference
from tests.models.vision.fast_vlm.small_network import make_smaller_network, pictures


def test_kernels_are_int8_and_the_network_is_near_the_float_one() -> None:
    network, x = make_smaller_network(use_se=True), pictures(4)
    expected = numbers(network(x))
    network.predict(x, verbose=0)  # a function compiled before must not live on
    paths = quantize_weights(network)
    assert len(paths) == 18 and network.folded
    assert 1e-4 < relative_difference(network(x), expected) < 0.05
    assert relative_difference(network.predict(x, verbose=0), network(x)) < 1e-4
    kinds = {v.name: keras.backend.standardize_dtype(v.dtype) for v in network.weights}
    assert "kernel" not in kinds and kinds["int8_kernel"] == "int8"
    check_torch_parameters(network)


def test_a_kernel_is_its_integers_times_its_scales() -> None:
    network = make_smaller_network()
    network.reparameterize(fold=True)
    layer = network.stages[0].blocks[0].token_mixer.fused_conv
    before = numbers(layer.kernel)
    quantize_weights(network)
    integers, scale = numbers(layer.int8_kernel), numbers(layer.kernel_scale)
    assert scale.shape == (1, 1, before.shape[2], 1) and np.abs(integers).max() == 127
    np.testing.assert_allclose(numbers(layer.kernel), integers * scale, rtol=1e-6)
    assert (np.abs(numbers(layer.kernel) - before) <= 0.501 * scale).all()


def test_files_and_presets_are_smaller_and_keep_the_numbers(tmp_path: Path) -> None:
    network, x = make_smaller_network(embed_dims=(32, 64), num_heads=(4, 8)), pictures(2)
    network.reparameterize(fold=True)
    network.save_to_preset(tmp_path / "float")
    quantize_weights(network)
    network.save_to_preset(tmp_path / "int8")
    network.save(tmp_path / "int8.keras")
    size = [(tmp_path / n / "model.weights.h5").stat().st_size for n in ("float", "int8")]
    assert size[1] < 0.7 * size[0]  # of so small a network most is the file's own structure
    for path in (tmp_path / "int8", tmp_path / "int8.keras"):
        loaded = FastVLM.from_preset(path)
        assert loaded.quantization == network.quantization
        np.testing.assert_allclose(numbers(loaded(x)), numbers(network(x)), atol=1e-6)


def test_plain_keras_networks(tmp_path: Path) -> None:
    model, x = make_plain(), random_array(4, 16, 16, 3)
    expected = numbers(model(x))
    assert quantize_weights(model, skip=["dense"]) == ["conv", "depthwise"]
    assert 1e-5 < relative_difference(model(x), expected) < 0.05
    model.save(tmp_path / "plain.keras")
    loaded = keras.saving.load_model(tmp_path / "plain.keras")
    np.testing.assert_allclose(numbers(loaded(x)), numbers(model(x)), atol=1e-6)


def test_half_precision_networks_multiply_out_in_their_own_type() -> None:
    network = make_smaller_network(dtype="mixed_bfloat16")
    expected = numbers(network(pictures(2)))
    quantize_weights(network)
    outputs = network(pictures(2))
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert relative_difference(outputs, expected) < 0.1


def test_what_cannot_be_done_is_one_line() -> None:
    network = make_smaller_network()
    with pytest.raises(CompressionError, match="8 bits"):
        quantize_weights(network, bits=4)
    quantize_weights(network)
    with pytest.raises(CompressionError, match="already"):
        quantize_weights(network)
    with pytest.raises(FusionError, match="quantized"):
        network.reset_reparameterization()
    network.compile("sgd", "mse")
    with pytest.raises(FusionError, match="inference"):
        network.fit(pictures(1), np.zeros((1, 5)), verbose=0)
    empty = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()], name="empty")
    with pytest.raises(CompressionError, match="empty"):
        quantize_weights(empty)
