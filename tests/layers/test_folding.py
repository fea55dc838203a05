"""Every declared fold takes up what another block of its kind computes, and says what it needs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dl_techniques.layers.conv_ffn import ConvFFN
from dl_techniques.layers.folding import BranchesIntoConv, Fold
from dl_techniques.layers.inverted_residual import ConvNormActivation
from dl_techniques.layers.large_kernel_conv import LargeKernelConv
from dl_techniques.layers.mobile_one_block import MobileOneBlock
from dl_techniques.layers.positional_encoding import ConditionalPositionalEncoding
from dl_techniques.layers.reparameterization import SwitchableLayer
from dl_techniques.layers.repmixer_block import RepMixer, RepMixerBlock
from dl_techniques.models.vision.fast_vlm.components import AttentionBlock
from tests.helpers import randomize

SHAPE = (2, 5, 4, 8)

BLOCKS: dict[str, Callable[[], SwitchableLayer]] = {
    "dense": lambda: MobileOneBlock(8, num_conv_branches=2),
    "depthwise": lambda: MobileOneBlock(16, strides=2, depthwise=True),
    "large kernel": lambda: LargeKernelConv(16),
    "mixer": RepMixer,
    "position": ConditionalPositionalEncoding,
    "conv and norm": lambda: ConvNormActivation(16, 3, strides=2),
    "depthwise and norm": lambda: ConvNormActivation(8, 3, depthwise=True),
    "feed forward": lambda: ConvFFN(16),
    "scaled": lambda: RepMixerBlock(2.0),
    "batch norm": lambda: AttentionBlock(2, 2.0),
    "layer norm": lambda: AttentionBlock(2, 2.0, "layer"),
}


def built(kind: str) -> SwitchableLayer:
    """A block with random weights in its training form."""
    block = BLOCKS[kind]()
    block.build(SHAPE)
    randomize(block)
    return block


@pytest.mark.parametrize("kind", BLOCKS)
def test_branches_absorb_what_another_block_computes(kind: str) -> None:
    block, other = built(kind), built(kind)
    wanted = tuple(0.5 + 1.5 * array for array in other.inference_arrays())
    block.neutral_branches()
    block.absorb(wanted)
    for array, expected in zip(block.inference_arrays(), wanted, strict=True):
        np.testing.assert_allclose(array, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("kind", BLOCKS)
def test_declared_parts_and_targets_exist(kind: str) -> None:
    block = built(kind)
    for fused in (False, True):
        block.set_form(fused)
        assert all(getattr(block, name).built for name in block.form_parts(fused))
    pairs = [variable for fold in block.folds() for variable in _pair(fold, block)]
    assert [id(v) for v in block.inference_variables()] == [id(v) for v in pairs]


def _pair(fold: Fold, block: SwitchableLayer) -> tuple[object, object]:
    return fold.target(block).kernel, fold.target(block).bias


def test_without_a_learner_nothing_is_taken_up() -> None:
    block = MobileOneBlock(8, num_conv_branches=0, use_identity_branch=False)
    block.build(SHAPE)
    randomize(block)
    before = block.inference_arrays()
    (fold,) = block.folds()
    assert isinstance(fold, BranchesIntoConv) and fold.learner is None
    block.absorb(tuple(2.0 * array for array in before))
    np.testing.assert_array_equal(block.inference_arrays()[0], before[0])
