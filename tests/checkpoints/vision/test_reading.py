"""Weight files to networks: forms, heads, what does not fit and how it is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dl_techniques import FastVLM, MobileOne
from dl_techniques.checkpoints.vision import network_map
from dl_techniques.errors import CheckpointError, PresetError, VariantError
from tests.checkpoints.vision.small_variants import (
    OTHER,
    SMALL,
    add_small_variants,
    arrays_of,
    small_network,
    write,
)
from tests.helpers import Array, numbers, random_array, randomize, relative_difference, values

FORMS = [False, True]


@pytest.fixture(autouse=True)
def small_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """All tests of this file know the small variants."""
    add_small_variants(monkeypatch)


@pytest.fixture
def arrays() -> dict[str, Array]:
    """A branched network's arrays under timm's names."""
    return arrays_of(small_network())


def refusal(path: Path, error: type[Exception] = CheckpointError, **options: Any) -> str:
    """The one line that loading gives."""
    with pytest.raises(error) as caught:
        FastVLM.from_preset(path, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 900
    return message


@pytest.mark.parametrize("fused", FORMS)
@pytest.mark.parametrize("words", ["timm", "apple"])
def test_a_file_gives_the_network_in_its_form(words: str, fused: bool, tmp_path: Path) -> None:
    network = small_network(fused)
    loaded = FastVLM.from_preset(write(arrays_of(network, words), tmp_path))
    assert loaded.form_state() == network.form_state() and loaded.include_top
    assert loaded.name == f"fast_vlm_{SMALL}" and loaded.num_classes == 5
    for one, other in zip(values(loaded), values(network), strict=True):
        np.testing.assert_array_equal(one, other)
    if words == "apple" and fused:  # the same arrays in the same places: once is enough
        x = random_array(2, 32, 24, 3)
        np.testing.assert_array_equal(numbers(loaded(x)), numbers(network(x)))


@pytest.mark.once
def test_a_loaded_network_trains_fuses_and_is_saved(tmp_path: Path) -> None:
    source = FastVLM.from_variant(OTHER, num_classes=2)
    randomize(source)
    network = FastVLM.from_preset(write(arrays_of(source), tmp_path))
    x = random_array(2, 16, 16, 3)
    network.compile("sgd", "mse")
    network.fit(x, np.zeros((2, 2), "float32"), verbose=0)
    expected = numbers(network(x))
    assert relative_difference(expected, source(x)) > 1e-4
    network.reparameterize()
    assert relative_difference(network(x), expected) < 1e-5
    network.save_to_preset(tmp_path / "ours")
    again = FastVLM.from_preset(tmp_path / "ours")
    assert relative_difference(again(x), expected) < 1e-5


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_file_of_another_type(dtype: str, arrays: dict[str, Array], tmp_path: Path) -> None:
    path = write({name: array.astype(dtype) for name, array in arrays.items()}, tmp_path)
    network = FastVLM.from_preset(path)
    assert {v.dtype for v in network.weights} == {"float32"}
    kernel = arrays["stages.1.blocks.0.mlp.fc1.weight"].astype(dtype).astype("float32")
    ours = numbers(network.stages[1].blocks[0].conv_ffn.fc1.kernel)
    np.testing.assert_array_equal(ours, kernel[:, :, 0, 0].T)


@pytest.mark.once
def test_arguments_that_a_file_leaves_open(arrays: dict[str, Array], tmp_path: Path) -> None:
    network = FastVLM.from_preset(
        write(arrays, tmp_path),
        dtype="mixed_bfloat16",
        name="mine",
        input_shape=(32, 32, 3),
        classifier_activation="softmax",
        preprocessing={"size": 32},
    )
    assert network.dtype_policy.name == "mixed_bfloat16" and network.name == "mine"
    assert network.preprocessing.size == 32 and network.image_shape == (32, 32, 3)
    np.testing.assert_allclose(numbers(network(random_array(1, 32, 32, 3))).sum(), 1, atol=0.02)


def test_without_classifier(arrays: dict[str, Array], tmp_path: Path) -> None:
    path = write(arrays, tmp_path)
    assert FastVLM.from_preset(path, include_top=False).output_shape[1:] == (None, None, 128)
    assert FastVLM.from_preset(path, num_classes=0).output_shape[1:] == (128,)
    headless = {k: v for k, v in arrays.items() if not k.startswith("head.")}
    path = write(headless, tmp_path)
    assert not FastVLM.from_preset(path).include_top
    assert "no classifier" in refusal(path, include_top=True)


def test_another_number_of_classes(arrays: dict[str, Array], tmp_path: Path) -> None:
    arrays["head.fc.weight"], arrays["head.fc.bias"] = random_array(7, 128), random_array(7)
    path = write(arrays, tmp_path)
    assert FastVLM.from_preset(path).num_classes == 7
    message = refusal(path, num_classes=5)
    assert "7 classes, not 5" in message and "include_top=False" in message


@pytest.mark.parametrize("name", ["head_dist.weight", "dist_head.weight"])
def test_a_second_classifier(name: str, arrays: dict[str, Array], tmp_path: Path) -> None:
    path = write({**arrays, name: random_array(5, 128)}, tmp_path)
    assert "distillation" in refusal(path)
    assert not FastVLM.from_preset(path, include_top=False).include_top


def test_clips_projection_is_a_kernel_without_bias(
    arrays: dict[str, Array], tmp_path: Path
) -> None:
    apple = arrays_of(small_network(), "apple")
    apple = {k: v for k, v in apple.items() if not k.startswith("head.")}
    apple["head.proj"] = random_array(128, 9)
    network = FastVLM.from_preset(write(apple, tmp_path, "image_encoder.model."))
    assert network.num_classes == 9
    np.testing.assert_array_equal(values(network.head[-1])[0], apple["head.proj"])
    assert not values(network.head[-1])[1].any()


def test_missing_unused_and_misshaped(arrays: dict[str, Array], tmp_path: Path) -> None:
    del arrays["final_conv.conv_scale.bn.bias"]
    arrays["stages.0.blocks.0.extra"] = random_array(2)
    arrays["stages.1.blocks.1.mlp.fc2.bias"] = random_array(31)
    message = refusal(write(arrays, tmp_path))
    assert "weights.safetensors" in message
    assert "1 missing: final_conv.conv_scale.bn.bias" in message
    assert "1 unused: stages.0.blocks.0.extra" in message
    assert "1 mis-shaped: stages.1.blocks.1.mlp.fc2.bias (31,) instead of (32,)" in message


def test_a_half_fused_file(arrays: dict[str, Array], tmp_path: Path) -> None:
    fused = arrays_of(small_network(fused=True))
    mixed = {k: v for k, v in arrays.items() if not k.startswith("stem.2.")}
    mixed |= {k: v for k, v in fused.items() if k.startswith("stem.2.")}
    message = refusal(write(mixed, tmp_path))
    assert "missing: stem.0.reparam_conv.weight" in message and "unused" in message


def test_the_variant_is_checked(arrays: dict[str, Array], tmp_path: Path) -> None:
    path = write(arrays, tmp_path)
    assert FastVLM.from_preset(path, variant=SMALL).num_classes == 5
    message = refusal(path, variant=OTHER)
    assert OTHER in message and SMALL in message and "[16, 32, 64]" in message
    assert "did you mean 'fastvit_small'" in refusal(path, VariantError, variant="fastvit_smal")


def test_numbers_of_no_variant(arrays: dict[str, Array], tmp_path: Path) -> None:
    more = {
        k.replace("stages.1.blocks.0.", "stages.1.blocks.2."): v
        for k, v in arrays.items()
        if k.startswith("stages.1.blocks.0.")
    }
    message = refusal(write(arrays | more, tmp_path))
    assert "no known variant" in message and "depths [1, 3, 1]" in message


def test_settled_and_unknown_arguments(arrays: dict[str, Array], tmp_path: Path) -> None:
    path = write(arrays, tmp_path)
    for key in ("embed_dims", "reparameterized", "num_clases"):
        assert key in refusal(path, VariantError, **{key: 1})


def test_another_class(arrays: dict[str, Array], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="use FastVLM.from_preset"):
        MobileOne.from_preset(write(arrays, tmp_path))


def test_a_variant_with_our_own_preset(tmp_path: Path) -> None:
    small_network().save_to_preset(tmp_path)
    with pytest.raises(PresetError, match="variant='fastvit_small' is for weight files"):
        FastVLM.from_preset(tmp_path, variant=SMALL)


def test_a_folder_of_timms(arrays: dict[str, Array], tmp_path: Path) -> None:
    write(arrays, tmp_path).rename(tmp_path / "model.safetensors")
    said = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "crop_pct": 0.5, "input_size": [3, 96, 96]}
    config = {"architecture": SMALL, "pretrained_cfg": {**said, "interpolation": "bilinear"}}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    found = FastVLM.from_preset(tmp_path).preprocessing
    assert (found.size, found.mean, found.interpolation) == (96, (0.1, 0.2, 0.3), "bilinear")
    assert found.resized_side == 192
    config["architecture"] = "fastvit_sa12"
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    assert "'fastvit_sa12', but the tensors are of 'fastvit_small'" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{", "utf-8")
    assert "config.json: no JSON" in refusal(tmp_path)


def test_a_folded_network_has_no_foreign_names() -> None:
    network = small_network()
    network.reparameterize(fold=True)
    with pytest.raises(CheckpointError, match="folded.*reset_reparameterization"):
        network_map(network, "timm")


def test_a_bias_that_was_trained_folded_has_no_foreign_name() -> None:
    network = small_network()
    network.reparameterize(fold=True)
    for layer in network._flatten_layers():
        if layer.name == "qkv":
            layer.bias.assign(np.linspace(-1, 1, layer.bias.shape[0]))
    network.reset_reparameterization()
    with pytest.raises(CheckpointError, match="save_to_preset"):
        network_map(network, "timm")
