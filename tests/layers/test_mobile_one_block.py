"""MobileOne: branches, one convolution, and the way back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dl_techniques.errors import FusionError
from dl_techniques.layers.mobile_one_block import ConvNorm, MobileOneBlock
from tests.helpers import (
    check_forms,
    check_layer,
    numbers,
    numpy_convolution,
    random_array,
    randomize,
    relative_difference,
)

SHAPE = (2, 6, 5, 4)
KINDS: dict[str, dict[str, Any]] = {
    "dense": {"filters": 4},
    "strided": {"filters": 8, "strides": 2, "use_se": True},
    "depthwise": {"filters": 4, "depthwise": True, "use_se": True},
    "depthwise strided": {"filters": 8, "strides": 2, "depthwise": True, "kernel_size": 7},
    "point": {"filters": 4, "kernel_size": 1, "activation": "relu"},
    "three branches": {"filters": 4, "num_conv_branches": 3, "activation": None},
    "no scale": {"filters": 4, "use_scale_branch": False, "use_identity_branch": False},
}
EACH = pytest.mark.parametrize("kind", KINDS)


def inference_norm(norm: Any, x: np.ndarray) -> np.ndarray:
    """A BatchNorm at inference, from its definition."""
    mean, variance = numbers(norm.moving_mean), numbers(norm.moving_variance)
    return (x - mean) / np.sqrt(variance + 1e-5) * numbers(norm.gamma) + numbers(norm.beta)


def test_is_the_sum_of_its_branches() -> None:
    block, x = MobileOneBlock(4, activation=None), random_array(*SHAPE)
    block.build(SHAPE)
    randomize(block)
    total = inference_norm(block.identity, x)
    for branch in (block.conv_0, block.scale):
        total += inference_norm(branch.norm, numpy_convolution(x, numbers(branch.conv.kernel)))
    assert relative_difference(block(x), total) < 2e-6


@EACH
def test_layer_contract(kind: str) -> None:
    check_layer(MobileOneBlock(**KINDS[kind]), SHAPE)


@EACH
def test_layer_contract_fused(kind: str) -> None:
    check_layer(MobileOneBlock(**KINDS[kind], reparameterized=True), SHAPE)


@EACH
def test_forms(kind: str) -> None:
    check_forms(MobileOneBlock(**KINDS[kind]), SHAPE)


def test_fused_block_is_one_convolution() -> None:
    block = MobileOneBlock(8, strides=2)
    block.build(SHAPE)
    assert len(block.weights) == 10
    block.reparameterize()
    assert [v.shape for v in block.weights] == [(3, 3, 4, 8), (8,)]


def test_identity_branch_needs_equal_shapes() -> None:
    for options, expected in (({}, True), ({"strides": 2}, False), ({"filters": 8}, False)):
        block = MobileOneBlock(**{"filters": 4, **options})
        block.build(SHAPE)
        assert block.has_identity is expected


def test_norm_alone_is_a_block_too() -> None:
    options = {"num_conv_branches": 0, "use_scale_branch": False, "activation": None}
    check_forms(MobileOneBlock(4, depthwise=True, **options), SHAPE, trainable=False)
    check_forms(MobileOneBlock(4, **options), SHAPE, trainable=False)


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("use_scale_branch", [False, True])
def test_what_branches_cannot_hold_is_refused(depthwise: bool, use_scale_branch: bool) -> None:
    block = MobileOneBlock(
        4, depthwise=depthwise, num_conv_branches=0, use_scale_branch=use_scale_branch
    )
    block.build(SHAPE)
    randomize(block)
    block.reparameterize()
    x = random_array(*SHAPE)
    kernel = numbers(block.fused_conv.kernel)
    kernel[0, 0] += 0.5
    block.fused_conv.kernel.assign(kernel.astype("float32"))
    trained = numbers(block(x))
    with pytest.raises(FusionError, match=block.name):
        block.reset_reparameterization()
    assert block.reparameterized
    np.testing.assert_array_equal(numbers(block(x)), trained)


def test_a_trained_norm_block_comes_back_where_it_can() -> None:
    block = MobileOneBlock(
        4, depthwise=True, num_conv_branches=0, use_scale_branch=False, activation=None
    )
    block.build(SHAPE)
    randomize(block)
    block.reparameterize()
    kernel = numbers(block.fused_conv.kernel)
    kernel[1, 1] *= 1.3
    block.fused_conv.kernel.assign(kernel.astype("float32"))
    block.fused_conv.bias.assign(numbers(block.fused_conv.bias).astype("float32") + 0.2)
    x = random_array(*SHAPE)
    trained = numbers(block(x))
    block.reset_reparameterization()
    assert relative_difference(block(x), trained) < 1e-5


def test_no_branch_is_refused() -> None:
    block = MobileOneBlock(8, 1, num_conv_branches=0)
    with pytest.raises(ValueError, match="no branch is left"):
        block.build(SHAPE)


def test_depthwise_filters_must_fit() -> None:
    with pytest.raises(ValueError, match="filters=6 for 4 channels"):
        MobileOneBlock(6, depthwise=True).build(SHAPE)


@pytest.mark.parametrize("depthwise", [False, True])
def test_conv_norm_contract(depthwise: bool) -> None:
    check_layer(ConvNorm(8, 3, 2, depthwise), SHAPE)


def test_batch_norm_uses_batch_statistics_while_training() -> None:
    block, x = MobileOneBlock(4), random_array(*SHAPE)
    block.build(SHAPE)
    randomize(block)
    before = numbers(block.conv_0.norm.moving_mean)
    assert relative_difference(block(x, training=True), block(x)) > 0.01
    assert (numbers(block.conv_0.norm.moving_mean) != before).any()
