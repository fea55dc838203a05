"""What is frozen stays so in files, copies and pickles, and training goes on where it stopped."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques import FastVLM, FastVLMBackbone, FastVLMCausalLM, MobileOne
from tests.helpers import numbers
from tests.layers.test_freezing import flags
from tests.models.vision.fast_vlm.small_network import (
    CLASSES,
    make_network,
    make_smaller_network,
    pictures,
)
from tests.models.vlm.fast_vlm.small_model import DECODERS, make_backbone, make_model
from tests.models.vlm.fast_vlm.small_model import pictures as photographs

LABELS = np.arange(2) % CLASSES
WAYS = ["config", "keras", "preset", "pickle", "copy", "nested", "clone"]


def small_mobile_one() -> MobileOne:
    """One stage of two branches."""
    return MobileOne(4, (8, 8), (1, 1), 8, num_conv_branches=2, input_shape=(16, 16, 3))


def again(model: Any, way: str, folder: Path) -> Any:
    """The model, rebuilt in one of the ways that there are."""
    if way == "config":
        return type(model).from_config(model.get_config())
    if way == "pickle":
        return pickle.loads(pickle.dumps(model))
    if way == "copy":
        return copy.deepcopy(model)
    if way == "preset":
        model.save_to_preset(folder / "preset")
        return type(model).from_preset(folder / "preset")
    if way == "nested":
        picture = keras.Input(model.input_shape[1:])
        keras.Model(picture, model(picture)).save(folder / "nested.keras")
        return keras.models.load_model(folder / "nested.keras").layers[-1]
    if way == "clone":
        return keras.models.clone_model(keras.Sequential([model])).layers[-1]
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def freeze(network: Any, fused: bool = False) -> None:
    """A whole block, a block but for one part, and one part of a block."""
    network.stem.trainable = False
    network.stages[0].trainable = False
    network.stages[0].blocks[-1].trainable = True
    block = network.stages[1].blocks[0]
    parts = [part for part in block._flatten_layers(include_self=False) if part.weights]
    parts[-1].trainable = False


@pytest.mark.parametrize("way", WAYS)
def test_a_network_comes_back_as_frozen_as_it_was(way: str, tmp_path: Path) -> None:
    network = make_network()
    freeze(network)
    expected = flags(network)
    assert {flag for _, flag in expected} == {True, False}
    assert flags(again(network, way, tmp_path)) == expected


@pytest.mark.parametrize("make", [make_network, small_mobile_one])
@pytest.mark.parametrize("fold", [False, True])
def test_fused_networks_come_back_as_frozen_as_they_were(
    make: Callable[[], Any], fold: bool, tmp_path: Path
) -> None:
    network = make()
    freeze(network)
    branched = flags(network)
    network.reparameterize(fold=fold)
    frozen = network.stem.variables
    assert frozen and not any(v.trainable for v in frozen) and network.trainable_variables
    loaded = again(network, "keras", tmp_path)
    assert flags(loaded) == flags(network)
    network.reset_reparameterization()
    assert flags(network) == branched
    loaded.reset_reparameterization()
    assert not any(v.trainable for v in loaded.stem.variables)


@pytest.mark.parametrize("make", [make_network, small_mobile_one])
def test_a_network_that_is_frozen_whole_comes_back_so(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    network = make()
    network.trainable = False
    network.stages[0].trainable = True  # has no effect below a frozen network, and is kept
    loaded = again(network, "preset", tmp_path)
    assert flags(loaded) == flags(network) and loaded.trainable_variables == []


def test_flags_of_what_is_left_out_mean_nothing() -> None:
    """A network trained in its classifier alone, made anew without it."""
    network = make_network()
    network.trainable = False
    network.get_layer("head").trainable = True
    features = FastVLM.from_config({**network.get_config(), "include_top": False})
    assert not any(v.trainable for v in features.variables)


def compiled(network: Any) -> Any:
    """With an optimizer that remembers."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.AdamW(1e-2), loss)
    return network


def test_training_goes_on_from_a_file_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    """Frozen weights and statistics stay; the others move as in the run that went on."""
    network = make_smaller_network()
    freeze(network)
    compiled(network).fit(pictures(), LABELS, verbose=0)
    frozen = [numbers(v) for v in network.stem.weights]
    loaded = again(network, "keras", tmp_path)
    assert len(loaded.trainable_variables) == len(network.trainable_variables)
    assert int(loaded.optimizer.iterations) == 1
    for model in (network, loaded):
        model.fit(pictures(), LABELS, verbose=0)
    for before, after in zip(frozen, loaded.stem.weights, strict=True):
        np.testing.assert_array_equal(before, numbers(after))
    for going, resumed in zip(network.weights, loaded.weights, strict=True):
        np.testing.assert_allclose(numbers(going), numbers(resumed), rtol=1e-4, atol=1e-5)


def test_a_vision_language_model_with_a_frozen_encoder_can_be_resumed(tmp_path: Path) -> None:
    model = make_model()
    model.backbone.vision_encoder.trainable = False
    model.compile(keras.optimizers.Adam(1e-3))
    x = {"prompts": ["what is this?"] * 2, "images": photographs(2), "responses": ["a cat"] * 2}
    model.fit(x, batch_size=2, verbose=0)
    frozen = [numbers(v) for v in model.backbone.vision_encoder.weights]
    loaded = again(model, "keras", tmp_path)
    assert flags(loaded) == flags(model)
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations) == 1
    loaded.fit(x, batch_size=2, verbose=0)
    for before, after in zip(frozen, loaded.backbone.vision_encoder.weights, strict=True):
        np.testing.assert_array_equal(before, numbers(after))


@pytest.mark.parametrize("kind", DECODERS)
def test_a_backbone_of_every_decoder_keeps_its_flags(kind: str) -> None:
    """Of its parts, of single layers of the decoder, and of what is in them."""
    backbone = make_backbone(kind)
    backbone.vision_encoder.trainable = False
    backbone.projector.dense_1.trainable = False
    backbone.text_backbone.trainable = False
    layer = backbone.text_backbone.transformer_layers[1]
    layer.trainable = True
    next(
        part for part in layer._flatten_layers(include_self=False) if part.weights
    ).trainable = False
    again = FastVLMBackbone.from_config(backbone.get_config())
    assert flags_of_backbone(again) == flags_of_backbone(backbone)
    assert len(again.trainable_variables) == len(backbone.trainable_variables)
    assert again.get_config() == backbone.get_config()


def flags_of_backbone(backbone: Any) -> list[Any]:
    """Of all parts; the decoder itself stands in no backend's list of layers."""
    parts = [backbone.image_embedding, backbone.image_splice, backbone.text_backbone]
    return [backbone.trainable, *(flags(part) for part in parts)]


@pytest.mark.parametrize("way", ["keras", "preset", "copy"])
def test_a_model_keeps_the_flags_of_its_parts(way: str, tmp_path: Path) -> None:
    model = make_model()
    model.backbone.vision_encoder.trainable = False
    model.backbone.text_backbone.transformer_layers[0].trainable = False
    loaded = again(model, way, tmp_path)
    assert flags(loaded) == flags(model)
    assert len(loaded.trainable_variables) == len(model.trainable_variables)


def test_a_frozen_model_stays_frozen_above_trainable_parts() -> None:
    model = make_model()
    model.trainable = False
    model.backbone.trainable = True
    loaded = FastVLMCausalLM.from_config(model.get_config())
    assert not loaded.trainable and loaded.backbone.trainable
    assert loaded.trainable_variables == []
    assert len(loaded.backbone.trainable_variables) == len(model.backbone.trainable_variables)


def test_a_backbone_made_frozen_freezes_its_parts_on_every_backend() -> None:
    whole = make_backbone()
    frozen = FastVLMBackbone(whole.vision_encoder, whole.text_backbone, trainable=False)
    assert not any(v.trainable for v in frozen.variables)
    assert not frozen.text_backbone.trainable


def test_a_file_that_names_a_frozen_decoder_alone_is_believed() -> None:
    """Files without the flags of parts say that much."""
    backbone = make_backbone()
    backbone.text_backbone.trainable = False
    config = backbone.get_config()
    del config["trainable_parts"]
    old = FastVLMBackbone.from_config(config)
    assert not old.text_backbone.trainable and old.projector.trainable_variables
    assert not any(v.trainable for v in old.text_backbone.variables)


def test_what_lora_froze_stays_frozen(tmp_path: Path) -> None:
    """The adapters are merged when a model is saved; the kernels do not become trainable."""
    model = make_model()
    model.backbone.enable_lora(2)
    lora = [v for v in model.trainable_variables if v.name.startswith("lora_")]
    others = {v.path for v in model.trainable_variables} - {v.path for v in lora}
    assert lora
    loaded = again(model, "keras", tmp_path)
    assert {v.path for v in loaded.trainable_variables} == others


def test_lora_of_an_encoder_fuses_and_comes_back() -> None:
    """Folding would write into kernels that the adapters compute: refused before any change."""
    network = make_network()
    layer = network.stages[-1].blocks[0].attention.qkv
    layer.enable_lora(2)
    before = flags(network)
    with pytest.raises(ValueError, match="qkv has LoRA adapters.*fold=True"):
        network.reparameterize(fold=True)
    assert flags(network) == before and not network.reparameterized
    network.reparameterize()
    network.reset_reparameterization()
    assert flags(network) == before
    loaded = FastVLM.from_config(network.get_config())
    assert not loaded.stages[-1].blocks[0].attention.qkv.kernel.trainable
