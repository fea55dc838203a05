"""Structured pruning: the right channels with the right weights, as an ordinary network."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques import FastVLM
from dl_techniques.compression.channel_pruning import (
    ChannelCounts,
    keep_channels,
    prune_channels,
)
from dl_techniques.errors import CompressionError
from tests.compression.dead_channels import make_half_dead_network, make_one_stage_network
from tests.helpers import TOLERANCE, numbers, relative_difference
from tests.models.vision.fast_vlm.small_network import (
    CLASSES,
    SIZE,
    make_network,
    make_smaller_network,
    pictures,
)
from tools.variant_table import count_macs

SHAPE = (SIZE, SIZE, 3)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"use_se": True, "tail_expansion": 2, "stem_scale_branch": False, "depths": (1, 2, 1)},
    {"mixers": ("repmixer", "attention", "attention"), "num_heads": (1, 2, 4)},
]


@pytest.mark.once
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "se-tail", "attention"])
def test_without_its_dead_channels_a_network_computes_the_same(options: dict[str, Any]) -> None:
    network, alive = make_half_dead_network(**options)
    scores = {label: living.astype("float64") for label, living in alive.items()}
    counts = ChannelCounts.of(network).cut(0.5, divisor=1)
    x = pictures()
    for form in ("branched", "fused", "folded"):
        if form != "branched":
            network.reparameterize(fold=form == "folded")
        expected = numbers(network(x))
        smaller = keep_channels(network, counts, scores)
        assert smaller.form_config() == network.form_config()
        assert smaller.config.embed_dims == (4, 8, 16)
        assert relative_difference(smaller(x), expected) < TOLERANCE
    assert smaller.count_params() < 0.45 * network.count_params()


def test_a_pruned_network_fuses_as_any_other() -> None:
    smaller = prune_channels(make_network(), 0.5)
    assert np.any(numbers(smaller.downsample_layers[0].pointwise.identity.gamma) == 0)
    expected = numbers(smaller(pictures()))
    smaller.reparameterize(fold=True)
    assert relative_difference(smaller(pictures()), expected) < TOLERANCE


def test_a_pruned_network_is_saved_and_loaded_as_any_other(tmp_path: Path) -> None:
    smaller = prune_channels(make_network(), 0.3, targets=("hidden",), divisor=5)
    assert smaller.config.mlp_ratios == (15 / 8, 25 / 16, 45 / 32)
    smaller.save(tmp_path / "small.keras")
    smaller.save_to_preset(tmp_path / "preset")
    expected = numbers(smaller(pictures()))
    for source in ("small.keras", "preset"):
        loaded = FastVLM.from_preset(tmp_path / source)
        np.testing.assert_array_equal(numbers(loaded(pictures())), expected)
        assert loaded.config == smaller.config


def test_a_pruned_network_is_trained_as_any_other() -> None:
    smaller = prune_channels(make_one_stage_network(), 0.5)
    assert getattr(smaller, "optimizer", None) is None
    smaller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = numbers(smaller.weights[0])
    loss = smaller.train_on_batch(pictures(4), np.arange(4) % CLASSES)
    assert np.isfinite(loss) and np.any(numbers(smaller.weights[0]) != before)


@pytest.mark.once
def test_half_the_channels_of_a_network_with_whole_heads() -> None:
    network = make_network(embed_dims=(16, 32, 64), num_heads=None, mlp_ratio=3.0)
    expected = {
        ("width",): ((8, 16, 32), 6.0, 2.0),
        ("hidden",): ((16, 32, 64), 1.5, 1.25),
        ("width", "hidden"): ((8, 16, 32), 3.0, 2.5),
    }
    for targets, (dims, ratio, least) in expected.items():
        smaller = prune_channels(network, 0.5, targets=targets)
        assert (smaller.config.embed_dims, smaller.config.mlp_ratio) == (dims, ratio)
        assert smaller.config.num_heads is None and smaller.stages[-1].num_heads == dims[-1] // 32
        assert count_macs(network, SHAPE) > least * count_macs(smaller, SHAPE)


@pytest.mark.once
def test_the_network_itself_stays_as_it_is() -> None:
    network = make_network()
    expected = numbers(network(pictures()))
    prune_channels(network, 0.5)
    np.testing.assert_array_equal(numbers(network(pictures())), expected)
    assert network.config.embed_dims == (8, 16, 32) and not network.reparameterized


def test_attention_heads_stay_whole_and_no_more_goes_than_asked() -> None:
    counts = ChannelCounts.of(FastVLM.from_variant("nano"))
    assert counts.cut(0.5).widths == (16, 32, 64)
    assert counts.cut(0.7).widths == (8, 16, 32)
    assert counts.cut(0.1) == ChannelCounts((24, 48, 96), (44, 88, 176), (0, 0, 32))
    assert counts.cut(0.99, ("hidden",)).hidden == (4, 4, 4)


def test_the_ratio_gives_the_hidden_width_back() -> None:
    for hidden, width in itertools.product(range(1, 60), (3, 7, 24, 49)):
        ratio = ChannelCounts((width,), (hidden,), (0,)).arguments(None)["mlp_ratio"]
        assert int(width * ratio) == hidden


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"fraction": 0.0}, "fraction is 0.0; expected a number between 0 and 1"),
        ({"fraction": 50}, "fraction is 50"),
        ({"targets": ("depth",)}, "targets are .*depth.*width"),
        ({"targets": "width"}, "targets are 'width'"),
        ({"targets": ()}, "targets are"),
        ({"divisor": 0}, "divisor is 0"),
        ({"fraction": 0.01, "divisor": 8}, "drops no channel.*raise it"),
        ({"importance": "gut"}, "importance is 'gut'; use one of l1, taylor"),
    ],
)
def test_requests_that_cannot_be(request_: dict[str, Any], message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        prune_channels(make_smaller_network(), **request_)


def test_what_is_no_plain_network_is_refused() -> None:
    with pytest.raises(CompressionError, match="a Sequential cannot be pruned; give a FastVLM"):
        prune_channels(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), 0.5)
    network = make_smaller_network()
    network.head[-1].quantize("int8")
    with pytest.raises(CompressionError, match="quantize afterwards"):
        prune_channels(network, 0.5)
