"""Kinds of attention as an argument of the network."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques.errors import VariantError
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from tests.helpers import TOLERANCE, numbers, random_array, randomize, relative_difference

KINDS = [("full", None), ("window", 2), ("strided", 2), ("linear", None)]


def make(kind: str, extent: int | None, size: int | None = None) -> FastVLM:
    network = FastVLM(
        num_classes=3,
        embed_dims=(8, 16),
        depths=(1, 2),
        num_heads=(1, 2),
        attention_kind=kind,
        attention_extent=extent,
        input_shape=(size, size, 3),
    )
    randomize(network)
    return network


@pytest.mark.parametrize(("kind", "extent"), KINDS)
def test_kind_survives_saving_and_folding(kind: str, extent: int | None, tmp_path: Path) -> None:
    network = make(kind, extent)
    x = random_array(2, 40, 56, 3)
    expected = numbers(network(x))
    network.reparameterize(fold=True)
    assert relative_difference(network(x), expected) < TOLERANCE
    network.save(tmp_path / "network.keras")
    again = keras.models.load_model(tmp_path / "network.keras", compile=False)
    assert again.config.attention_kind == kind and again.config.attention_extent == extent
    assert relative_difference(again.predict(x, verbose=0), expected) < TOLERANCE


@pytest.mark.once
def test_weights_fit_all_kinds_and_outputs_differ() -> None:
    full = make("full", None)
    x = random_array(1, 64, 64, 3)
    outputs = [numbers(full(x))]
    for kind, extent in KINDS[1:]:
        other = make(kind, extent)
        other.set_weights(full.get_weights())
        outputs.append(numbers(other(x)))
    for i, a in enumerate(outputs):
        assert all(relative_difference(a, b) > 1e-4 for b in outputs[i + 1 :])


@pytest.mark.parametrize(("kind", "extent"), KINDS[1:])
def test_trains(kind: str, extent: int | None) -> None:
    network = make(kind, extent, 32)
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = numbers(network.stages[-1].blocks[0].attention.qkv.kernel)
    network.fit(random_array(4, 32, 32, 3), np.array([0, 1, 2, 0]), verbose=0)
    after = numbers(network.stages[-1].blocks[0].attention.qkv.kernel)
    assert np.isfinite(after).all() and np.abs(after - before).max() > 0


def test_unknown_kind() -> None:
    with pytest.raises(VariantError, match="window, strided, linear"):
        FastVLM.from_variant("nano", attention_kind="windowed")
