"""Flags of layers and their parts: read, rebuilt, and kept when a block changes form."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import pytest

from dl_techniques.layers.conv_ffn import ConvFFN
from dl_techniques.layers.freezing import part_flags, set_flags
from dl_techniques.layers.large_kernel_conv import LargeKernelConv, PatchEmbedding
from dl_techniques.layers.mobile_one_block import ConvNorm, MobileOneBlock
from dl_techniques.layers.positional_encoding import ConditionalPositionalEncoding
from dl_techniques.layers.repmixer_block import ConvolutionalStem, RepMixer, RepMixerBlock
from dl_techniques.layers.squeeze_excitation import SqueezeExcitation
from dl_techniques.layers.token_selector import TokenSelector
from dl_techniques.models.vision.fast_vlm.attention import Attention
from dl_techniques.models.vision.fast_vlm.components import AttentionBlock, Stage
from dl_techniques.models.vision.mobile_one.model import MobileOneStage
from dl_techniques.models.vlm.fast_vlm.network.projector import FeatureEnhancer, Projector
from tests.helpers import rebuilt

SHAPE = (1, 4, 4, 8)
LAYERS: dict[str, Callable[[], Any]] = {
    "ConvNorm": lambda: ConvNorm(8, 3),
    "MobileOneBlock": lambda: MobileOneBlock(8, 3, use_se=True),
    "SqueezeExcitation": lambda: SqueezeExcitation(0.25),
    "ConvFFN": lambda: ConvFFN(8),
    "LargeKernelConv": lambda: LargeKernelConv(8, use_se=True),
    "PatchEmbedding": lambda: PatchEmbedding(8),
    "RepMixer": lambda: RepMixer(),
    "RepMixerBlock": lambda: RepMixerBlock(),
    "ConvolutionalStem": lambda: ConvolutionalStem(8),
    "ConditionalPositionalEncoding": lambda: ConditionalPositionalEncoding(),
    "Attention": lambda: Attention(2),
    "AttentionBlock": lambda: AttentionBlock(2),
    "Stage": lambda: Stage(2, "repmixer", 1, positional_encoding=True),
    "MobileOneStage": lambda: MobileOneStage(8, 2),
    "TokenSelector": lambda: TokenSelector(2, trained=True),
    "Projector": lambda: Projector(4, enhance=True),
    "FeatureEnhancer": lambda: FeatureEnhancer(),
}


def flags(layer: Any) -> list[tuple[str, bool]]:
    """Name and flag of a layer, of all layers below it and of all variables, in order.

    Without the numbers of the names that Keras makes up.
    """
    layers = layer._flatten_layers()
    inner = [(re.sub(r"_\d+$", "", part.name), bool(part.trainable)) for part in layers]
    return inner + [(v.path.split("/")[-1], bool(v.trainable)) for v in layer.variables]


def built(make: Callable[[], Any]) -> Any:
    """A built layer."""
    layer = make()
    layer.build((1, 4, 8) if isinstance(layer, TokenSelector) else SHAPE)
    return layer


def remade(layer: Any) -> Any:
    """What its config and the shape that it was built with give."""
    document = keras.saving.serialize_keras_object(layer)
    return keras.saving.deserialize_keras_object(document)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", ["whole", "one part", "all but one part", "one variable"])
def test_a_rebuilt_layer_has_the_flags_of_the_old_one(name: str, kind: str) -> None:
    """Whole layers, their first and last parts, and single variables."""
    layer = built(LAYERS[name])
    parts = [part for part in layer._flatten_layers(include_self=False) if part.weights]
    if kind != "one part":
        layer.trainable = kind == "one variable"
    if kind == "one variable":
        parts[-1].weights[0].trainable = False
    elif kind != "whole":
        parts[-1].trainable = kind == "all but one part"
    expected = flags(layer)
    assert len({flag for _, flag in expected}) == (1 if kind == "whole" else 2)
    again = remade(layer)
    assert flags(again) == expected
    assert again.get_config() == layer.get_config()
    assert remade(again).get_config() == layer.get_config()


def test_a_config_of_trainable_parts_says_nothing_about_them() -> None:
    """Files of networks without frozen parts are what they were."""
    assert "trainable_parts" not in built(LAYERS["Stage"]).get_config()


def test_a_layer_that_is_frozen_before_it_is_built_freezes_its_parts() -> None:
    """Inside a model the variables alone count."""
    layer = Projector(4, trainable=False)
    model = keras.Sequential([keras.Input((8,)), layer])
    assert model.trainable_variables == []


def test_names_that_keras_made_up_do_not_matter() -> None:
    """They differ from process to process."""
    flagged = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(2)])
    flagged.build((None, 3))
    flagged.layers[1].trainable = False
    other = keras.Sequential([keras.layers.Dense(2), keras.layers.Dense(2)])
    other.build((None, 3))
    assert flagged.layers[1].name != other.layers[1].name
    set_flags(other, True, part_flags(flagged))
    assert [layer.trainable for layer in other.layers] == [True, False]


@pytest.mark.parametrize("fold", [False, True])
def test_a_frozen_block_is_frozen_in_its_other_form(fold: bool) -> None:
    """And comes back frozen."""
    block = built(LAYERS["RepMixerBlock"])
    block.trainable = False
    block.reparameterize(fold=fold)
    assert not any(v.trainable for v in block.variables)
    assert flags(rebuilt(block, SHAPE)) == flags(block)
    block.reset_reparameterization()
    assert not any(v.trainable for v in block.variables)


@pytest.mark.parametrize("name", ["AttentionBlock", "RepMixerBlock", "LargeKernelConv", "Stage"])
def test_single_frozen_parts_come_back_when_a_block_is_unfused(name: str) -> None:
    """A frozen norm is no frozen block: fused, the block is trained."""
    block = built(LAYERS[name])
    for part in block._flatten_layers(include_self=False):
        if isinstance(part, keras.layers.BatchNormalization):
            part.trainable = False
    before = flags(block)
    block.reparameterize(fold=True)
    assert block.trainable_variables
    block.reset_reparameterization()
    assert flags(block) == before


def test_parts_frozen_one_by_one_make_a_frozen_convolution() -> None:
    """What computes the same is as frozen as what it came from."""
    block = built(LAYERS["LargeKernelConv"])
    block.large_conv.trainable = block.small_conv.trainable = False
    block.reparameterize()
    assert [v.trainable for v in block.fused_conv.variables] == [False, False]
    assert all(v.trainable for v in block.se.variables)


def test_freezing_while_fused_holds_for_the_branches() -> None:
    """So does making trainable again."""
    block = built(LAYERS["LargeKernelConv"])
    block.reparameterize()
    block.trainable = False
    block.reset_reparameterization()
    assert block.trainable_variables == []
    assert not any(v.trainable for v in block.variables)
    block.reparameterize()
    block.trainable = True
    block.reset_reparameterization()
    assert block.large_conv.conv.kernel.trainable and block.small_conv.norm.gamma.trainable


def test_attention_keeps_its_flags_when_it_is_folded() -> None:
    """It is made anew, with a bias."""
    block = built(LAYERS["AttentionBlock"])
    block.attention.qkv.trainable = False
    block.reparameterize(fold=True)
    assert [v.trainable for v in block.attention.qkv.variables] == [False, False]
    assert block.attention.proj.kernel.trainable
