"""Scores of channels: what computes nothing scores lowest; Taylor against finite differences."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dl_techniques.compression.channel_importance import channel_importance
from dl_techniques.compression.channel_map import channel_axes
from dl_techniques.errors import CompressionError
from tests.compression.dead_channels import half, make_one_stage_network, silence
from tests.helpers import Array, numbers
from tests.models.vision.fast_vlm.small_network import (
    CLASSES,
    make_network,
    make_smaller_network,
    pictures,
)

LABELS = np.arange(8) % CLASSES


@pytest.mark.once
def test_a_hidden_channel_without_weights_has_no_score_and_the_others_have() -> None:
    network = make_one_stage_network()
    ffn = network.stages[0].blocks[0].conv_ffn
    alive = half(np.random.default_rng(1), ffn.hidden_dim)
    for variable, axis in ((ffn.fc1.kernel, 1), (ffn.fc1.bias, 0), (ffn.fc2.kernel, 0)):
        silence(variable, ~alive, axis)
    for kind in ("l1", "taylor"):
        scores = channel_importance(network, kind, (pictures(8), LABELS))["hidden_0_0"]
        assert np.all(scores[~alive] == 0) and np.all(scores[alive] > 0)


@pytest.mark.once
def test_the_stream_counts_all_its_layers_alike() -> None:
    network = make_smaller_network()
    before = channel_importance(network)["width_0"]
    kernel = network.stages[0].blocks[0].conv_ffn.fc1.kernel
    kernel.assign(numbers(kernel).astype("float32") * 100)
    np.testing.assert_allclose(channel_importance(network)["width_0"], before, rtol=1e-5)
    silence(kernel, np.arange(8) == 3, axis=0)
    after = channel_importance(network)["width_0"]
    assert after[3] < before[3] and np.all(np.delete(after, 3) > np.delete(before, 3))


@pytest.mark.once
def test_the_form_makes_no_difference_to_l1() -> None:
    network = make_network()
    branched = channel_importance(network)
    network.reparameterize()
    fused = channel_importance(network)
    assert branched.keys() == fused.keys()
    for label, scores in branched.items():
        np.testing.assert_allclose(fused[label], scores, rtol=1e-4)


@pytest.mark.once
def test_heads_have_one_number() -> None:
    scores = channel_importance(make_network())["attention_2_0"].reshape(4, 8)
    assert np.all(scores == scores[:, :1]) and len(np.unique(scores[:, 0])) == 4


def test_taylor_is_the_slope_of_the_loss() -> None:
    network = make_one_stage_network()
    network.reparameterize()
    data = (pictures(8), LABELS)
    scores = channel_importance(network, "taylor", data)
    for label, channel in (("hidden_0_0", 3), ("width_0", 5), ("stem", 1)):
        slope = (
            _loss(network, data, label, channel, 1.01) - _loss(network, data, label, channel, 0.99)
        ) / 0.02
        assert scores[label][channel] == pytest.approx(slope**2, rel=0.05)


def _loss(
    network: keras.Model, data: tuple[Array, Array], label: str, channel: int, by: float
) -> float:
    """Cross-entropy with all weights of a channel scaled, those of norms excepted."""
    bounds = [
        b for b in channel_axes(network) if label in b.axes and "/norm/" not in b.variable.path
    ]  # type: ignore[arg-type]
    kept = [numbers(b.variable).astype("float32") for b in bounds]
    for bound, value in zip(bounds, kept, strict=True):
        scaled = value.copy()
        for axis, found in enumerate(bound.axes):
            if found == label:
                np.moveaxis(scaled, axis, 0)[channel] *= by
        bound.variable.assign(scaled)
    logits = numbers(network(data[0]))
    for bound, value in zip(bounds, kept, strict=True):
        bound.variable.assign(value)
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return float(-log_softmax[np.arange(len(data[1])), data[1]].mean())


def test_taylor_looks_at_batches_and_changes_nothing() -> None:
    network = make_one_stage_network()
    before = [numbers(v) for v in network.weights]
    batch = (pictures(8), keras.utils.to_categorical(LABELS, CLASSES))
    once = channel_importance(network, "taylor", [batch])
    many = channel_importance(network, "taylor", iter([batch] * 5), max_batches=2)
    for label, scores in once.items():
        np.testing.assert_allclose(many[label], scores, rtol=1e-4, atol=1e-12)
    for variable, value in zip(network.weights, before, strict=True):
        np.testing.assert_array_equal(numbers(variable), value)


def test_requests_that_cannot_be() -> None:
    network = make_smaller_network()
    with pytest.raises(CompressionError, match="importance is 'gut'; use one of l1, taylor"):
        channel_importance(network, "gut")
    with pytest.raises(CompressionError, match='"taylor" needs data'):
        channel_importance(network, "taylor")
    with pytest.raises(CompressionError, match="holds no batch"):
        channel_importance(network, "taylor", [])


@pytest.mark.once
def test_what_is_frozen_has_the_same_importance() -> None:
    network = make_smaller_network()
    expected = channel_importance(network, "taylor", (pictures(8), LABELS))
    network.trainable = False
    frozen = channel_importance(network, "taylor", (pictures(8), LABELS))
    for label, scores in expected.items():
        np.testing.assert_allclose(frozen[label], scores, rtol=1e-4)
