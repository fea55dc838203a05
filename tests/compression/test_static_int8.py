"""Static int8: matrix products on integers with ranges that were seen on pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.compression.static_int8 import quantize_static
from dl_techniques.errors import CompressionError, FusionError
from dl_techniques.kernels.torch_bytes import multiplies_static_bytes
from dl_techniques.layers.quantized.fake_quant import nudged_grid
from dl_techniques.layers.quantized.static_int8 import StaticInt8
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vision.mobile_one import MobileOne
from tests.compression.test_quantization_aware import make_plain
from tests.helpers import (
    check_torch_parameters,
    numbers,
    random_array,
    randomize,
    relative_difference,
)
from tests.models.vision.fast_vlm.small_network import make_smaller_network, pictures

BYTES = keras.backend.backend() == "torch" and multiplies_static_bytes()
only_bytes = pytest.mark.skipif(not BYTES, reason="PyTorch on a processor with AVX-512 VNNI")


def static_layers(network: Any) -> list[Any]:
    return [x for x in network._flatten_layers(include_self=False) if isinstance(x, StaticInt8)]


def test_matrix_products_are_int8_and_the_network_is_near_the_float_one() -> None:
    network, x = make_smaller_network(use_se=True), pictures(4)
    expected = numbers(network(x))
    network.predict(x, verbose=0)  # a function compiled before must not live on
    paths = quantize_static(network, x)
    assert len(paths) == len(static_layers(network)) and network.folded
    assert "stage_1/block_0/conv_ffn/fc1" in paths and "stage_2/block_0/attention/qkv" in paths
    assert not any("/se/" in path or "token_mixer" in path for path in paths)
    assert "stem/block_0/fused_conv" not in paths and "stem/block_2/fused_conv" in paths
    assert 1e-4 < relative_difference(network(x), expected) < 0.1
    assert relative_difference(network.predict(x, verbose=0), network(x)) < 1e-4
    check_torch_parameters(network)


def test_an_output_is_the_sum_of_integers_times_two_steps() -> None:
    network, x = make_smaller_network(), pictures(4)
    quantize_static(network, x)
    layer = network.stages[0].blocks[0].conv_ffn.fc1
    given = 9 * random_array(3, 5, layer.int8_kernel.shape[0])  # beyond its range as well
    low, high = numbers(layer.inputs_quantizer.low), numbers(layer.inputs_quantizer.high)
    step, zero = (numbers(v) for v in nudged_grid(low, high))
    bytes_ = np.clip(np.floor(given / step + zero + 0.5), 0, 255)
    sums = (bytes_ - zero).astype("int64") @ numbers(layer.int8_kernel).astype("int64")
    expected = sums * step * numbers(layer.kernel_scale).reshape(-1) + numbers(layer.bias)
    assert relative_difference(layer(given), expected) < 1e-5
    assert (bytes_ == 0).any() and (bytes_ == 255).any()
    assert np.abs(numbers(layer.int8_kernel)).max() == 127


def test_files_and_presets_keep_the_numbers(tmp_path: Path) -> None:
    network, x = make_smaller_network(), pictures(2)
    quantize_static(network, [(x, np.zeros(2)), (0.5 * x, np.zeros(2))])
    network.save_to_preset(tmp_path / "preset")
    network.save(tmp_path / "static.keras")
    for path in (tmp_path / "preset", tmp_path / "static.keras"):
        loaded = FastVLM.from_preset(path)
        assert loaded.quantization == network.quantization
        np.testing.assert_allclose(numbers(loaded(x)), numbers(network(x)), atol=1e-6)


def test_mobile_one_and_layers_to_leave() -> None:
    sizes = {"embed_dims": (8, 16), "depths": (1, 1), "stem_dim": 8, "num_classes": 3}
    network, x = MobileOne(**sizes, input_shape=(32, 32, 3)), pictures(2)
    randomize(network)
    expected = numbers(network(x))
    paths = quantize_static(network, x, skip=["^head$"], batch_size=1)
    assert paths and "head" not in paths
    assert 1e-5 < relative_difference(network(x), expected) < 0.1


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "bfloat16"])
def test_half_precision(dtype: str) -> None:
    network, x = make_smaller_network(dtype=dtype), pictures(2)
    expected = numbers(network(x))
    quantize_static(network, x)
    outputs = network(x)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert relative_difference(outputs, expected) < 0.15
    assert relative_difference(network.predict(x, verbose=0), outputs) < 0.05


@pytest.mark.once
def test_what_cannot_be_done_is_one_line_and_changes_nothing() -> None:
    network, x = make_smaller_network(), pictures(2)
    expected = numbers(network(x))
    with pytest.raises(CompressionError, match="got none"):
        quantize_static(network, [])
    with pytest.raises(CompressionError, match="finite"):
        quantize_static(network, np.full_like(x, np.nan))
    with pytest.raises(CompressionError, match="finds none"):
        quantize_static(network, x, skip=["no_such_layer"])
    with pytest.raises(CompressionError, match="Functional"):
        quantize_static(make_plain(), x)
    assert network.quantization is None and not static_layers(network)
    assert not any("call" in vars(x) for x in network._flatten_layers(include_self=False))
    assert relative_difference(network(x), expected) < 1e-4
    quantize_static(network, x)
    with pytest.raises(CompressionError, match="already"):
        quantize_static(network, x)
    by_keras = make_smaller_network()
    by_keras.quantize("int8")
    with pytest.raises(CompressionError, match="already"):
        quantize_static(by_keras, x)
    with pytest.raises(FusionError, match="quantized"):
        network.reset_reparameterization()


@only_bytes
@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_bytes_are_multiplied_where_no_gradient_is_wanted(dtype: str, limit: float) -> None:
    import torch

    network, x = make_smaller_network(dtype=dtype), pictures(2)
    quantize_static(network, x)
    floats = numbers(network(x))
    assert not any(layer._product for layer in static_layers(network))
    with torch.no_grad():
        multiplied = numbers(network(x))
    assert all(layer._product for layer in static_layers(network))
    assert relative_difference(multiplied, floats) < limit
    given = torch.from_numpy(x).requires_grad_()
    network(given).sum().backward()
    assert float(given.grad.abs().max()) > 0


@only_bytes
def test_other_weights_are_noticed_by_recordings_too() -> None:
    network, other, x = make_smaller_network(), make_smaller_network(), pictures(2)
    quantize_static(network, x)
    randomize(other, seed=5)
    quantize_static(other, x)
    for _ in range(12):
        before = network.predict_on_batch(x)
    assert network.predict_function._recorded and network.predict_function._products
    network.set_weights(other.get_weights())
    assert relative_difference(network.predict_on_batch(x), numbers(other(x))) < 1e-5
    assert relative_difference(before, numbers(other(x))) > 0.1
