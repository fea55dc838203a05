"""What the demo model's recipe needs on an accelerator: drawing processes, branches."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques import FastVLM
from dl_techniques.training import Repeated
from dl_techniques.training.batches import drawn_ahead
from recipes.demo.draw.records import DemoData
from recipes.demo.stages import branching, finetune, pretrain
from tests.tools.one_tower import one_tower

pytestmark = pytest.mark.once

DATA = DemoData(None, mix={"scenes": 0.5, "words": 0.5}, upper_words=True, lookups=True)


def same(ours: Any, theirs: Any) -> bool:
    """Whether two batches are equal in every array."""
    pairs = zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_processes_draw_the_same_batches_and_give_them_again() -> None:
    labelled = pretrain.LabelledPictures(DATA, 4, 3, seed=2)
    preload = ["recipes.demo.stages.finetune"]
    with drawn_ahead(labelled, processes=2, preload=preload) as ahead:
        assert len(ahead) == 3
        for place in ((0, 0), (0, 2), (1, 1)):
            assert same(ahead.batch(*place), labelled.batch(*place))
    preprocessor = one_tower().preprocessor
    slices = finetune.EpochSlices(DATA, preprocessor, 8, 3, 4)
    with drawn_ahead(slices, processes=1, preload=preload) as ahead:
        twice = Repeated(ahead, passes=2)
        drawn = [twice.batch(epoch, index) for epoch in range(2) for index in range(2)]
    assert same(drawn[0], slices.batch(0, 0)) and same(drawn[2], slices.batch(0, 1))
    assert same(drawn[1], drawn[0])
    assert any(same(drawn[3], earlier) for earlier in (drawn[0], drawn[2]))


def test_batches_hold_no_more_than_the_longest_answer() -> None:
    preprocessor = one_tower().preprocessor
    slices = finetune.EpochSlices(DATA, preprocessor, 8, 3, 4)
    whole = slices.slice(0)[0]
    x, y, weight = finetune.with_answers_alone(whole)
    answers = (whole[2] > 0).sum(1)
    assert y.shape == weight.shape == (4, answers.max()) and answers.max() < whole[1].shape[1] / 2
    assert ((weight > 0).sum(1) == answers).all()
    for row, positions in enumerate(x.pop("answer_positions")):
        kept = weight[row] > 0
        assert (positions[kept] == np.flatnonzero(whole[2][row])).all()
        assert (y[row][kept] == whole[1][row][positions[kept]]).all()
    assert same(x, whole[0])
    drawn = slices.batch(0, 0)
    alone = keras.config.backend() == "torch"
    assert ("answer_positions" in drawn[0]) == alone and same(drawn[1], y if alone else whole[1])


def test_failure_of_a_worker_is_raised() -> None:
    broken = pretrain.LabelledPictures(DemoData(None, mix={"clothing": 1.0}), 4, 3)
    with (
        drawn_ahead(broken, processes=1) as ahead,
        pytest.raises(ValueError, match="work folder"),
    ):
        ahead.batch(0, 0)


@pytest.mark.slow_on_jax
def test_folded_encoder_is_branched_with_the_statistics_of_its_pictures() -> None:
    encoder = FastVLM.from_preset("demo")
    images = np.random.default_rng(0).random((16, 64, 64, 3)).astype("float32")

    def features(training: bool = False) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(encoder(images, training=training)))

    before = features()
    branching.branch(encoder, images)
    norms = [
        layer
        for layer in encoder._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) > 20 and not encoder.reparameterized
    np.testing.assert_allclose(features(), before, atol=1e-5 * np.abs(before).max())
    for layer in encoder._flatten_layers():
        if hasattr(layer, "rate"):
            layer.rate = 0.0  # drop paths and dropout
    np.testing.assert_allclose(features(training=True), before, atol=2e-3 * np.abs(before).max())
