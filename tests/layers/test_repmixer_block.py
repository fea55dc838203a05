"""RepMixer, its block, and the stem."""

from __future__ import annotations

import numpy as np
import pytest

from dl_techniques.layers.repmixer_block import ConvolutionalStem, RepMixer, RepMixerBlock
from tests.helpers import (
    check_forms,
    check_layer,
    numbers,
    random_array,
    randomize,
    relative_difference,
    shake,
)

SHAPE = (2, 5, 6, 8)


def test_mixer_equals_its_definition() -> None:
    layer, x = RepMixer(), random_array(*SHAPE)
    layer.build(SHAPE)
    randomize(layer)
    mixed = numbers(layer.mixer(x)) - numbers(layer.norm(x))
    expected = x + numbers(layer.layer_scale.gamma) * mixed
    assert relative_difference(layer(x), expected) < 1e-6


@pytest.mark.parametrize("fused", [False, True])
def test_mixer_contract(fused: bool) -> None:
    check_layer(RepMixer(reparameterized=fused), SHAPE)


def test_mixer_forms() -> None:
    check_forms(RepMixer(), SHAPE)


def test_a_mixer_with_a_fused_part_fuses_and_comes_back() -> None:
    layer, x = RepMixer(), random_array(*SHAPE)
    layer.build(SHAPE)
    randomize(layer)
    expected = numbers(layer(x))
    layer.mixer.reparameterize()
    shake(layer.mixer)
    shaken = numbers(layer(x))
    assert relative_difference(shaken, expected) > 1e-3
    layer.reparameterize()
    assert relative_difference(layer(x), shaken) < 1e-5
    layer.reset_reparameterization()
    assert relative_difference(layer(x), shaken) < 1e-5


@pytest.mark.parametrize(("fused", "folded"), [(False, False), (True, False), (True, True)])
def test_block_contract(fused: bool, folded: bool) -> None:
    block = RepMixerBlock(
        2.0, dropout_rate=0.1, drop_path_rate=0.1, reparameterized=fused, folded=folded
    )
    check_layer(block, SHAPE)


@pytest.mark.parametrize("fold", [False, True])
def test_block_forms(fold: bool) -> None:
    check_forms(RepMixerBlock(2.0), SHAPE, fold=fold)


def test_block_in_three_steps() -> None:
    block, x = RepMixerBlock(2.0), random_array(*SHAPE)
    block.build(SHAPE)
    randomize(block)
    expected, counts = numbers(block(x)), [len(block.weights)]
    block.reparameterize()
    assert block.reparameterized and not block.folded
    counts.append(len(block.weights))
    block.reparameterize(fold=True)
    assert block.reparameterized and block.folded
    counts.append(len(block.weights))
    assert counts[0] > counts[1] > counts[2] == 8
    assert relative_difference(block(x), expected) < 1e-5


def test_stochastic_depth_drops_the_branch() -> None:
    block = RepMixerBlock(2.0, drop_path_rate=0.5, reparameterized=True, folded=True)
    x = random_array(32, 3, 3, 4)
    block.build(x.shape)
    randomize(block)
    mixed, outputs = numbers(block.token_mixer(x)), numbers(block(x, training=True))
    dropped = np.abs(outputs - mixed).max(axis=(1, 2, 3)) == 0
    assert 0 < dropped.sum() < 32


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("scale", [False, True])
def test_stem_contract(fused: bool, scale: bool) -> None:
    check_layer(ConvolutionalStem(4, scale, reparameterized=fused), (1, 17, 14, 3))


@pytest.mark.parametrize("scale", [False, True])
def test_stem_forms(scale: bool) -> None:
    check_forms(ConvolutionalStem(4, scale), (1, 16, 13, 3))
