"""Attention over a map, its block, and a stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dl_techniques.models.vision.fast_vlm.components import Attention, AttentionBlock, Stage
from tests.helpers import (
    check_forms,
    check_layer,
    numbers,
    random_array,
    randomize,
    relative_difference,
    shake,
)

SHAPE = (2, 3, 4, 8)


def test_attention_equals_its_definition() -> None:
    layer, x = Attention(2, use_qkv_bias=True), random_array(*SHAPE)
    layer.build(SHAPE)
    randomize(layer)
    tokens = x.reshape(2, 12, 8).astype("float64")
    mixed = tokens @ numbers(layer.qkv.kernel) + numbers(layer.qkv.bias)
    heads = []
    for head in range(2):
        q, k, v = (mixed[..., 8 * i + 4 * head : 8 * i + 4 * head + 4] for i in range(3))
        weights = np.exp(q @ k.transpose(0, 2, 1) / 2.0)
        heads.append(weights / weights.sum(-1, keepdims=True) @ v)
    expected = np.concatenate(heads, -1) @ numbers(layer.proj.kernel) + numbers(layer.proj.bias)
    assert relative_difference(layer(x), expected.reshape(SHAPE)) < 1e-5


@pytest.mark.parametrize("bias", [False, True])
def test_attention_contract(bias: bool) -> None:
    check_layer(Attention(4, bias, 0.1), SHAPE)


def test_heads_must_divide_channels() -> None:
    with pytest.raises(ValueError, match="8 channels.*3 heads"):
        Attention(3).build(SHAPE)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("folded", [False, True])
def test_block_contract(norm: str, folded: bool) -> None:
    block = AttentionBlock(2, 2.0, norm, 0.1, 0.1, layer_scale_init=0.2, folded=folded)
    check_layer(block, SHAPE)


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_block_forms(norm: str) -> None:
    check_forms(AttentionBlock(2, 2.0, norm), SHAPE, fold=True, trainable=norm == "layer")


def test_fusing_alone_changes_nothing_in_an_attention_block() -> None:
    block = AttentionBlock(2)
    block.build(SHAPE)
    before = [id(v) for v in block.weights]
    block.reparameterize()
    assert [id(v) for v in block.weights] == before and not block.folded


def test_a_trained_qkv_bias_that_no_norm_can_hold_stays_with_qkv() -> None:
    block, x = AttentionBlock(2, 2.0), random_array(*SHAPE)
    block.build(SHAPE)
    randomize(block)
    block.reparameterize(fold=True)
    shake(block)
    trained = numbers(block(x))
    block.reset_reparameterization()
    assert block.form_word() == "biased" and block.attention.qkv.use_bias
    assert relative_difference(block(x), trained) < 1e-5
    names = [v.path.split("/", 1)[1] for v in block.trainable_variables]
    assert "norm/gamma" in names and "attention/qkv/bias" in names
    randomize(block)
    branched = numbers(block(x))
    block.reparameterize(fold=True)
    assert relative_difference(block(x), branched) < 1e-5
    block.reset_reparameterization()
    np.testing.assert_array_equal(numbers(block(x)), branched)
    twin = AttentionBlock.from_config(block.get_config())
    twin.build(SHAPE)
    twin.set_weights(block.get_weights())
    np.testing.assert_array_equal(numbers(twin(x)), branched)


def test_a_qkv_bias_that_the_norm_can_hold_comes_back() -> None:
    block, x = AttentionBlock(2, 2.0), random_array(*SHAPE)
    block.build(SHAPE)
    randomize(block)
    block.reparameterize(fold=True)
    for variable in (block.attention.proj.kernel, block.attention.proj.bias):
        variable.assign(numbers(variable).astype("float32") * 1.5)
    trained = numbers(block(x))
    block.reset_reparameterization()
    assert relative_difference(block(x), trained) < 1e-5


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="'group'"):
        AttentionBlock(2, norm="group")


STAGES: dict[str, dict[str, Any]] = {
    "repmixer": {"mixer": "repmixer", "positional_encoding": True},
    "attention": {"mixer": "attention", "positional_encoding": True},
    "layer norm": {"mixer": "attention", "norm": "layer"},
}


def make_stage(kind: str, depth: int = 1, **options: Any) -> Stage:
    """A stage of 8 channels."""
    return Stage(depth, num_heads=2, mlp_ratio=2.0, **STAGES[kind], **options)


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("form", [False, True, "folded"])
def test_stage_contract(kind: str, form: bool | str) -> None:
    check_layer(make_stage(kind, reparameterized=form), SHAPE)


@pytest.mark.parametrize("kind", STAGES)
def test_stage_forms(kind: str) -> None:
    check_forms(make_stage(kind), SHAPE, fold=True, trainable=kind == "repmixer")


def test_stage_hands_each_block_its_rate() -> None:
    stage = make_stage("repmixer", depth=3, drop_path_rates=[0.0, 0.1, 0.3])
    assert [block.drop_path.rate for block in stage.blocks] == [0.0, 0.1, 0.3]
    assert stage.get_config()["drop_path_rates"] == [0.0, 0.1, 0.3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixer": "pool"}, "'pool'"),
        ({"mixer": "repmixer", "drop_path_rates": [0.1]}, "1 rates for 2 blocks"),
        ({"mixer": "repmixer", "reparameterized": "fused"}, "'fused'"),
    ],
)
def test_a_wrong_stage_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stage(2, num_heads=2, **options)
