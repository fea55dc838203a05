"""The switch between training form and inference form."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dl_techniques.errors import FusionError
from dl_techniques.layers.mobile_one_block import MobileOneBlock
from dl_techniques.layers.reparameterization import SwitchableLayer
from dl_techniques.layers.repmixer_block import RepMixerBlock
from tests.helpers import (
    check_torch_parameters,
    numbers,
    random_array,
    randomize,
    relative_difference,
    values,
)

SHAPE = (1, 4, 5, 4)


def built_block(**options: object) -> RepMixerBlock:
    """A random block of the family with both depths of fusing in it."""
    block = RepMixerBlock(2.0, **options)  # type: ignore[arg-type]
    block.build(SHAPE)
    randomize(block)
    return block


def test_switches_have_paths() -> None:
    paths = ["", "token_mixer", "token_mixer/mixer", "token_mixer/norm", "conv_ffn"]
    assert list(built_block().form_state()) == paths
    fused = built_block(reparameterized=True)
    assert fused.form_state() == {"": False, "token_mixer": True, "conv_ffn": False}


@pytest.mark.parametrize("word", ["reparameterize", "reset_reparameterization"])
def test_a_stateless_scope_is_refused(word: str) -> None:
    block = built_block(reparameterized=word.startswith("reset"))
    before = values(block)
    with keras.StatelessScope(), pytest.raises(FusionError, match="compiled function"):
        getattr(block, word)()
    assert len(values(block)) == len(before)


def test_unbuilt_layers_change_form_too() -> None:
    block = RepMixerBlock(2.0)
    block.reparameterize(fold=True)
    block.build(SHAPE)
    assert block.reparameterized and block.folded and len(block.weights) == 8
    other = RepMixerBlock(2.0, reparameterized=True, folded=True)
    other.reset_reparameterization()
    other.build(SHAPE)
    assert not other.reparameterized and not other.folded


def test_a_failed_way_back_names_the_layer_type() -> None:
    class Nameless(SwitchableLayer):
        pass

    for call in ("inference_arrays", "inference_variables"):
        with pytest.raises(FusionError, match="Nameless"):
            getattr(Nameless(), call)()


@pytest.mark.parametrize("fused_first", [False, True])
def test_frozen_layers_stay_frozen(fused_first: bool) -> None:
    block = built_block(reparameterized=fused_first, folded=fused_first)
    block.trainable = False
    outer = keras.Sequential([keras.Input(SHAPE[1:]), block])
    if fused_first:
        block.reset_reparameterization()
    else:
        block.reparameterize(fold=True)
    assert not outer.trainable_variables
    block.trainable = True
    assert outer.trainable_variables


def test_going_back_and_forth_loses_nothing() -> None:
    # New parts may get the memory, and so the id, of old ones.
    block = MobileOneBlock(2, 1, activation=None)
    block.build((1, 1, 1, 2))
    for _ in range(30):
        block.reparameterize()
        assert len(block.weights) == 2
        block.reset_reparameterization()
        assert len(block.weights) == 9


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16"])
def test_half_precision_changes_form(dtype: str) -> None:
    block = MobileOneBlock(4, dtype=dtype)
    block.build(SHAPE)
    randomize(block)
    before, x = values(block), random_array(*SHAPE)
    expected = numbers(block(x))
    block.reparameterize()
    assert {v.dtype for v in block.weights} == {dtype.replace("mixed_bfloat16", "float32")}
    assert relative_difference(block(x), expected) < 0.03
    block.reset_reparameterization()
    for now, then in zip(values(block), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_part_can_change_by_itself() -> None:
    block = built_block()
    block.hold_parts()
    x = random_array(*SHAPE)
    expected = numbers(block(x))
    block.token_mixer.reparameterize()
    check_torch_parameters(block)
    assert relative_difference(block(x), expected) < 1e-5
    block.token_mixer.reset_reparameterization()
    check_torch_parameters(block)
    np.testing.assert_array_equal(numbers(block(x)), expected)


def test_a_layer_can_fuse_inside_someone_elses_model() -> None:
    image = keras.Input(SHAPE[1:])
    block = RepMixerBlock(2.0)
    model = keras.Model(image, block(image))
    randomize(model)
    x = random_array(*SHAPE)
    expected = numbers(model(x))
    block.reparameterize(fold=True)
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    assert relative_difference(copy(x), expected) < 1e-5
