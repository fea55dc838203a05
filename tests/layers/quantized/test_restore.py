"""Configs that say how a network is quantized, and what is wrong with some."""

from __future__ import annotations

import pytest

from dl_techniques.compat.keras_layers import named_parts
from dl_techniques.compression.weight_only import quantize_weights
from dl_techniques.errors import CompressionError
from dl_techniques.layers.quantized.restore import restore
from tests.models.vision.fast_vlm.small_network import make_smaller_network


def test_float_networks_say_nothing_and_quantized_ones_name_their_layers() -> None:
    network = make_smaller_network()
    assert "quantization" not in network.get_config()
    paths = quantize_weights(network, skip=["^head$"])
    table = network.get_config()["quantization"]
    assert table["kind"] == "int8_weights" and list(table["layers"]) == paths
    assert set(paths) < {path for path, _ in named_parts(network)}
    assert "head" not in paths


def test_a_config_that_does_not_fit_is_one_line() -> None:
    network = make_smaller_network()
    network.reparameterize(fold=True)
    for entry, words in (
        ({"kind": "int3", "layers": {}}, "int3"),
        ({"kind": "int8_weights", "layers": {"stage_9/conv": {}}}, "stage_9/conv"),
        ({"kind": "int8_weights", "layers": {"pool": {}}}, "pool"),
    ):
        with pytest.raises(CompressionError, match=words) as caught:
            restore(network, entry)
        assert "\n" not in str(caught.value)
