"""LoRA weights: layers by path, the same file on every backend, and what a file may not be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import keras
import keras_hub
import numpy as np
import pytest

from dl_techniques.errors import CheckpointError
from dl_techniques.models.vlm.fast_vlm import FastVLMBackbone
from dl_techniques.models.vlm.fast_vlm.lora_files import adapted_layers
from tests.models.vlm.fast_vlm.small_model import make_backbone, make_decoder, random_inputs

ATTENTION = "text_backbone/transformer_layer_{}/self_attention/{}"


def outputs(backbone: Any) -> np.ndarray:
    inputs = random_inputs(np.random.default_rng(3), [9], [1])
    inputs["padding_mask"] = inputs["padding_mask"].astype("int32")
    return keras.ops.convert_to_numpy(backbone(inputs, training=False))


def tuned(names: list[str] | None = None) -> Any:
    """A backbone after training: matrices and biases are others."""
    backbone = make_backbone()
    backbone.enable_lora(2, names)
    rng = np.random.default_rng(1)
    for layer in adapted_layers(backbone).values():
        for variable in layer.trainable_variables:
            variable.assign(rng.normal(0, 0.3, variable.shape))
    return backbone


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A file, and what the backbone computes that wrote it."""
    backbone, path = tuned(), tmp_path_factory.mktemp("lora") / "a.lora.h5"
    backbone.save_lora_weights(path)
    return path, outputs(backbone)


def test_layers_have_names(saved: tuple[Path, np.ndarray]) -> None:
    with h5py.File(saved[0]) as file:
        assert int(file["lora/rank"][()]) == 2
        for number in range(2):
            for name in ("query", "value"):
                group = file[f"lora/{ATTENTION.format(number, name)}"]
                assert set(group) == {"bias", "lora_kernel_a", "lora_kernel_b"}
        assert set(file["lora"]) == {"rank", "text_backbone"}


def test_everything_that_was_trained_comes_back(saved: tuple[Path, np.ndarray]) -> None:
    path, expected = saved
    fresh = make_backbone()
    assert np.abs(outputs(fresh) - expected).max() > 1e-2
    fresh.load_lora_weights(str(path))
    np.testing.assert_array_equal(outputs(fresh), expected)
    enabled = make_backbone()
    enabled.enable_lora(2)
    enabled.load_lora_weights(path)
    np.testing.assert_array_equal(outputs(enabled), expected)


def test_layers_that_a_user_chose(tmp_path: Path) -> None:
    backbone = tuned(["feedforward_gate_dense", "dense_1"])
    assert {name.rsplit("/", 1)[-1] for name in adapted_layers(backbone)} == {
        "feedforward_gate_dense", "dense_1",
    }  # fmt: skip
    backbone.save_lora_weights(tmp_path / "own.lora.h5")
    fresh = make_backbone()
    fresh.load_lora_weights(tmp_path / "own.lora.h5")
    np.testing.assert_array_equal(outputs(fresh), outputs(backbone))


def test_files_of_keras_hub_are_read(tmp_path: Path) -> None:
    backbone = make_backbone()
    backbone.enable_lora(2)
    for i, layer in enumerate(adapted_layers(backbone).values()):
        layer.lora_kernel_b.assign(np.full(layer.lora_kernel_b.shape, 0.1 * (i + 1)))
    path = tmp_path / "numbered.lora.h5"
    keras_hub.models.Backbone.save_lora_weights(backbone, str(path))
    fresh = make_backbone()
    fresh.load_lora_weights(path)
    np.testing.assert_array_equal(outputs(fresh), outputs(backbone))


def test_a_file_of_other_layers_or_rank_changes_nothing(
    saved: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    path = saved[0]
    wider = FastVLMBackbone(make_backbone().vision_encoder, make_decoder(hidden_dim=16))
    longer = make_backbone()
    longer.enable_lora(2, ["query"])
    other = make_backbone()
    other.enable_lora(3)
    for backbone, words in ((wider, "another model"), (longer, "query"), (other, "rank 3")):
        before = outputs(backbone)
        with pytest.raises(CheckpointError, match=words) as caught:
            backbone.load_lora_weights(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        np.testing.assert_array_equal(outputs(backbone), before)


def test_bad_files(saved: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    backbone = make_backbone()
    cut = tmp_path / "cut.lora.h5"
    cut.write_bytes(saved[0].read_bytes()[:900])
    with h5py.File(tmp_path / "empty.lora.h5", "w") as file:
        file["lora/rank"] = 2
    with h5py.File(tmp_path / "numbers.lora.h5", "w") as file:
        file["lora/vars/rank"] = 2
        file["lora/3/vars/lora_kernel_a"] = np.zeros((2, 2))
    for name, words in (
        ("none", "cannot be read"),
        ("cut", "cannot be read"),
        ("empty", "no LoRA weights"),
        ("numbers", "by numbers"),
    ):
        with pytest.raises(CheckpointError, match=words):
            backbone.load_lora_weights(tmp_path / f"{name}.lora.h5")


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    backbone = make_backbone()
    with pytest.raises(ValueError, match="enable_lora"):
        backbone.save_lora_weights(tmp_path / "a.lora.h5")
    backbone.enable_lora(2)
    with pytest.raises(ValueError, match="must end in .lora.h5"):
        backbone.save_lora_weights(tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())
