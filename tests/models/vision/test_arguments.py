"""What the constructors of both vision networks refuse, and what they show afterwards."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.errors import VariantError
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vision.mobile_one.model import MobileOne
from dl_techniques.models.vlm.fast_vlm.network.variants import FastVLMVariant
from tests.models.vision.fast_vlm.small_network import make_network

pytestmark = pytest.mark.once
NAN = float("nan")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": [1, 0, 4]}, r"num_heads is \[1, 0, 4\]; expected whole numbers of at least"),
        ({"num_heads": [1, 2, -4]}, "num_heads"),
        ({"embed_dims": [8, 0, 32]}, "embed_dims"),
        ({"embed_dims": [8, 16, "32"]}, "embed_dims"),
        ({"embed_dims": [], "depths": []}, "embed_dims is empty"),
        ({"depths": [1, -1, 1]}, "depths"),
        ({"depths": [1, 1.5, 1]}, "depths"),
        ({"mlp_ratio": 0}, "mlp_ratio is 0"),
        ({"mlp_ratio": [1.0, NAN, 2.0]}, "mlp_ratio is nan"),
        ({"dropout_rate": 1.5}, "dropout_rate is 1.5; expected a number from 0 to 1"),
        ({"drop_path_rate": -0.1}, "drop_path_rate"),
        ({"drop_path_rate": "0.1"}, "drop_path_rate"),
        ({"layer_scale_init": NAN}, "layer_scale_init"),
        ({"tail_expansion": -1}, "tail_expansion"),
        ({"positional_stages": [3]}, r"positional_stages is \[3\]; the 3 stages are 0 to 2"),
        ({"se_stages": [-1]}, "se_stages"),
        ({"num_classes": 2.5}, "num_classes is 2.5"),
        ({"num_classes": True}, "num_classes is True"),
        ({"input_shape": (32.0, 32, 3)}, "whole numbers"),
        ({"input_shape": (0, 32, 3)}, "whole numbers"),
    ],
)
def test_values_that_mean_nothing(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(VariantError, match=message) as caught:
        make_network(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"stem_dim": 0},
        {"num_conv_branches": -1},
        {"depths": (2, 0, 10, 1)},
        {"se_depths": (0, 0, -1, 0)},
        {"num_classes": -1},
    ],
)
def test_values_that_mean_nothing_to_mobile_one(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(VariantError, match=f"{name} is .*; expected whole numbers"):
        MobileOne(**arguments)


def test_numpys_numbers_are_numbers() -> None:
    network = make_network(depths=np.ones(3, int), dropout_rate=np.float32(0.5))
    assert network.depths == (1, 1, 1)


def test_files_with_numbers_that_no_layer_uses_still_load(tmp_path: Path) -> None:
    network = make_network()
    config = {**network.get_config(), "num_heads": [0, -1, 4], "se_stages": [7]}
    again = FastVLM.from_config(config)
    again.set_weights(network.get_weights())
    assert again.num_heads == (1, 1, 4) and again.se_stages == ()


@pytest.mark.parametrize(
    ("network", "renamed"),
    [
        (make_network(se_stages=[1], dropout_rate=0.1), {"input_shape", "reparameterized"}),
        (MobileOne(4, (8, 16), (1, 1), 8), {"input_shape", "reparameterized"}),
    ],
)
def test_arguments_are_attributes(network: Any, renamed: set[str]) -> None:
    config = network.get_config()
    names = set(inspect.signature(type(network).__init__).parameters) - {"self"}
    for name in names - renamed - {"preprocessing", "dtype"}:
        shown = getattr(network, name)
        assert (list(shown) if isinstance(shown, tuple) else shown) == config[name], name
    assert network.input_shape == (None, *network.image_shape)
    assert network.reparameterized is False
    network.reparameterize()
    assert network.reparameterized is True


@pytest.mark.parametrize(
    ("name", "meant"),
    [("fast_vlm_nano", "nano"), ("fast_vlm_fastvit_t8", "fastvit_t8"), ("Fast-VLM-Huge", "huge")],
)
def test_a_networks_own_name_finds_its_variant(name: str, meant: str) -> None:
    with pytest.raises(VariantError, match=f"did you mean '{meant}'"):
        FastVLM.from_variant(name)


def test_every_networks_own_name_finds_its_variant() -> None:
    for name in FastVLM.MODEL_VARIANTS:
        with pytest.raises(VariantError, match=f"did you mean '{name}'"):
            FastVLM.from_variant(f"fast_vlm_{name}")
    with pytest.raises(VariantError, match="did you mean 'fastvlm_0.5b'"):
        FastVLMVariant.named("apple/FastVLM_0.5b")


@pytest.mark.parametrize("dtype", ["float16", "mixed_float16"])
def test_float16_is_refused_where_it_overflows(dtype: str) -> None:
    with pytest.raises(VariantError, match="65504"):
        FastVLM.from_variant("fastvithd", dtype=dtype)
    assert FastVLM.from_variant("nano", dtype=dtype).compute_dtype == "float16"


def test_float16_as_the_global_policy_is_refused_too() -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        with pytest.raises(VariantError, match="65504"):
            FastVLM.from_variant("fastvithd")
    finally:
        keras.config.set_dtype_policy(before)
