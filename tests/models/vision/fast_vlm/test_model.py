"""FastVLM: variants, shapes, taps, bad arguments, one step of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.errors import VariantError
from dl_techniques.layers.multi_scale import MultiScaleFeatures
from dl_techniques.models.vision.fast_vlm.model import FastVLM, variant_arguments
from tests.helpers import (
    TOLERANCE,
    numbers,
    random_array,
    randomize,
    rebuilt,
    relative_difference,
    values,
)
from tests.models.vision.fast_vlm.small_network import (
    CLASSES,
    SIZE,
    make_network,
    make_smaller_network,
    pictures,
)

SMALL = ("nano", "tiny", "small")
HEAVY = [pytest.param(name, marks=pytest.mark.full) for name in ("base", "large", "huge")]


@pytest.mark.parametrize("name", [*SMALL, "base", *HEAVY[1:]])
def test_every_variant_builds(name: str) -> None:
    network = FastVLM.from_variant(name, include_top=False, input_shape=(64, 32, 3))
    config = FastVLM.MODEL_VARIANTS[name]
    assert tuple(network.output_shape) == (None, 4, 2, config.embed_dims[-1])
    assert network.feature_dim == config.embed_dims[-1] and network.total_stride == 16
    assert [stage.depth for stage in network.stages] == list(config.depths)
    assert len(network.downsample_layers) == 2 and network.name == f"fast_vlm_{name}"
    assert all(d.use_se == config.use_se for d in network.downsample_layers)


@pytest.mark.parametrize("name", [*SMALL, *HEAVY])
def test_variants_fuse_and_fold(name: str) -> None:
    network = FastVLM.from_variant(name, num_classes=7, input_shape=(None, None, 3))
    randomize(network)
    x = pictures(1, 32, 48)
    expected, counts = numbers(network(x)), [network.count_params()]
    for fold in (False, True):
        network.reparameterize(fold=fold)
        assert relative_difference(network(x), expected) < TOLERANCE
        counts.append(network.count_params())
    assert network.reparameterized and network.folded
    assert counts[0] > counts[1] > counts[2]
    network.reset_reparameterization()
    np.testing.assert_array_equal(numbers(network(x)), expected)


def count_trainable(network: FastVLM) -> int:
    """Numbers that training moves."""
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


@pytest.mark.parametrize(
    ("name", "classes", "branched", "fused"),
    [
        ("fastvit_t8", 1000, 4_026_232, 3_996_040),
        pytest.param("fastvithd", 768, 125_235_648, 125_074_272, marks=pytest.mark.full),
    ],
)
def test_published_parameter_counts(name: str, classes: int, branched: int, fused: int) -> None:
    network = FastVLM.from_variant(name, num_classes=classes, input_shape=(64, 64, 3))
    assert count_trainable(network) == branched
    network.reparameterize()
    assert count_trainable(network) == fused


@pytest.mark.full
@pytest.mark.parametrize("name", ["fastvit_t8", "fastvithd"])
def test_apples_networks_fuse_and_fold(name: str) -> None:
    network = FastVLM.from_variant(name, include_top=False)
    randomize(network)
    x = pictures(1, 64, 128)
    expected = numbers(network(x))
    assert expected.shape[-1] == network.feature_dim
    for fold in (False, True):
        network.reparameterize(fold=fold)
        assert relative_difference(network(x), expected) < TOLERANCE


def test_a_network_with_everything_fuses_and_folds() -> None:
    network = make_network(
        embed_dims=(8, 16, 16, 32),
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 2, 4),
        mixers=("repmixer", "repmixer", "attention", "attention"),
        positional_stages=(1, 3),
        se_stages=(2,),
        attention_norm="layer",
        tail_expansion=2,
        downsample_activation=False,
        stem_scale_branch=False,
        include_top=False,
    )
    x = pictures()
    expected = numbers(network(x))
    assert expected.shape == (2, 1, 1, 64) and network.feature_dim == 64
    assert network.total_stride == 32
    for fold in (False, True):
        network.reparameterize(fold=fold)
        assert relative_difference(network(x), expected) < TOLERANCE
    network.reset_reparameterization()
    np.testing.assert_array_equal(numbers(network(x)), expected)


@pytest.mark.parametrize(("scales", "sides"), [(1, (40, 32)), (2, (36, 44))])
def test_finer_maps_stand_beside_the_last(
    scales: int, sides: tuple[int, int], tmp_path: Path
) -> None:
    arguments = {"embed_dims": (8, 16, 32), "depths": (1, 1, 1), "num_heads": (1, 1, 1)}
    plain = make_network(include_top=False, input_shape=(None, None, 3), **arguments)
    network = type(plain).from_config({**plain.get_config(), "multi_scale": scales})
    network.set_weights(plain.get_weights())
    x = pictures(2, *sides)
    maps = plain.extract_features(x)
    expected = numbers(MultiScaleFeatures()(maps[-1 - scales :]))
    assert network.output_shape[-1] == network.feature_dim == expected.shape[-1]
    np.testing.assert_array_equal(numbers(network(x)), expected)
    for fold in (False, True):
        network.reparameterize(fold=fold)
        assert relative_difference(network(x), expected) < TOLERANCE
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    assert loaded.config.multi_scale == scales
    np.testing.assert_array_equal(numbers(loaded(x)), numbers(network(x)))


def test_finer_maps_change_no_pictures() -> None:
    arguments = variant_arguments("fastvit_t8")
    expected = arguments.pop("preprocessing")
    for number in (0, 1):
        sides = {"include_top": False, "input_shape": (64, 64, 3), "multi_scale": number}
        assert FastVLM(**{**arguments, **sides}).preprocessing == expected
    assert expected.size == 256 and expected.crop_fraction == 0.9


def test_finer_maps_that_cannot_be() -> None:
    with pytest.raises(VariantError, match="multi_scale=1 is for a feature map"):
        FastVLM.from_variant("nano", multi_scale=1)
    for number in (-1, 3):
        with pytest.raises(VariantError, match="0 to 2 stages before the last"):
            FastVLM.from_variant("nano", multi_scale=number, include_top=False)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_taps_are_the_forward_pass_bit_for_bit(fused: bool, dtype: str) -> None:
    network, x = make_network(include_top=False, dtype=dtype), pictures()
    inside = [network.stem.output, *(stage.output for stage in network.stages)]
    forward = keras.Model(network.input, inside)
    if fused:
        network.reparameterize()
    taps = network.extract_features(x)
    assert [tuple(t.shape) for t in taps] == [
        (2, 8, 8, 8),
        (2, 8, 8, 8),
        (2, 4, 4, 16),
        (2, 2, 2, 32),
    ]
    for tap, tensor in zip(taps, forward(x), strict=True):
        np.testing.assert_array_equal(numbers(tap), numbers(tensor))
    np.testing.assert_array_equal(numbers(taps[-1]), numbers(network(x)))


def test_unknown_and_unequal_sides() -> None:
    network = make_network(include_top=False, input_shape=(None, None, 3))
    assert tuple(network.output_shape) == (None, None, None, 32)
    assert numbers(network(pictures(1, 33, 50))).shape == (1, 3, 4, 32)
    fixed = make_network(include_top=False, input_shape=(32, 32, 3))
    np.testing.assert_array_equal(numbers(fixed(pictures())), numbers(network(pictures())))


def test_classes_and_pooled_features() -> None:
    x = pictures()
    logits = make_network()
    pooled = make_network(num_classes=0)
    maps = make_network(include_top=False)
    assert numbers(logits(x)).shape == (2, CLASSES)
    assert not maps.head and len(pooled.head) == 1 and len(logits.head) == 3
    mean = numbers(maps(x)).mean((1, 2))
    assert relative_difference(pooled(x), mean) < TOLERANCE
    kernel, bias = (numbers(v) for v in logits.head[-1].weights)
    assert relative_difference(logits(x), mean @ kernel + bias) < TOLERANCE


def test_classifier_activation() -> None:
    network = make_network(classifier_activation="softmax")
    np.testing.assert_allclose(numbers(network(pictures())).sum(-1), 1.0, rtol=1e-5)


def test_other_channels() -> None:
    network = make_network(input_shape=(SIZE, SIZE, 1))
    assert numbers(network(random_array(1, SIZE, SIZE, 1))).shape == (1, CLASSES)


def test_config_comes_back() -> None:
    network = make_network(
        drop_path_rate=0.2, dropout_rate=0.1, use_se=True, dtype="mixed_bfloat16", name="mine"
    )
    copy = rebuilt(network)
    assert copy.get_config() == network.get_config()
    assert copy.name == "mine" and copy.dtype_policy.name == "mixed_bfloat16"
    np.testing.assert_array_equal(numbers(copy(pictures())), numbers(network(pictures())))


def test_stochastic_depth_is_linear_over_all_blocks() -> None:
    network = FastVLM.from_variant("tiny", include_top=False)
    blocks = [block for stage in network.stages for block in stage.blocks]
    np.testing.assert_allclose([b.drop_path.rate for b in blocks], np.linspace(0, 0.05, 9))


def test_overrides_replace_the_variant() -> None:
    network = FastVLM.from_variant("nano", num_classes=3, depths=(1, 1, 1), name="other")
    assert tuple(network.output_shape) == (None, 3) and network.name == "other"
    assert network.config.embed_dims == (24, 48, 96)


def test_summary_prints() -> None:
    lines: list[str] = []
    make_network().summary(print_fn=lambda text, **_: lines.append(text))
    text = "\n".join(lines)
    assert "stem" in text and "stage_3" in text and "head" in text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FastVLM.from_variant("bse"), "'bse': did you mean 'base'"),
        (lambda: FastVLM.from_variant("nano", embed_dim=(8,)), "'embed_dim'.*embed_dims"),
        (lambda: FastVLM.from_variant("nano", num_heads=(1, 2, 5)), "5 heads"),
        (lambda: FastVLM(num_classes=-1), "-1"),
        (lambda: FastVLM(input_shape=(32, 32)), r"\(32, 32\)"),
        (lambda: FastVLM(input_shape=(32, 32, None)), "None"),
        (lambda: make_network(reparameterized="fused"), "'fused'"),
    ],
)
def test_bad_arguments_are_named(call: Any, message: str) -> None:
    with pytest.raises(VariantError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_one_step_trains(dtype: str) -> None:
    network = make_smaller_network(dtype=dtype, drop_path_rate=0.1, dropout_rate=0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.SGD(0.05), loss)
    before = values(network)
    history = network.fit(pictures(4), np.arange(4), batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert {v.dtype for v in network.weights} == {"float32"}
    after = values(network)
    assert all(np.isfinite(v).all() for v in after)
    moved = [(now != then).any() for now, then in zip(after, before, strict=True)]
    # A BatchNorm undoes any factor of a channel's only weight, so that weight has no gradient.
    factors = [v.path.endswith("mixer/scale/conv/kernel") for v in network.weights]
    known = zip(network.weights, moved, factors, strict=True)
    paths = [v.path for v, m, factor in known if not m and not factor]
    assert not paths, f"not trained: {paths}"
