"""What the demo model's recipe needs on an accelerator: drawing processes, branches, a clock."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques import FastVLM, FastVLMCausalLM
from tools.demo_model import branching, deadline, drawn_ahead, finetune, pretrain
from tools.demo_model.records import DemoData

pytestmark = pytest.mark.once

DATA = DemoData(None, mix={"scenes": 0.5, "words": 0.5}, upper_words=True, lookups=True)


def same(ours: Any, theirs: Any) -> bool:
    """Whether two batches are equal in every array."""
    pairs = zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def test_processes_draw_the_same_batches_and_give_them_again() -> None:
    labelled = pretrain.LabelledPictures(DATA, 4, 3, seed=2)
    before = dict(os.environ)
    with drawn_ahead.Drawing(2).drawn(labelled) as ahead:
        assert dict(os.environ) == before and len(ahead) == 3
        assert all(same(ahead[i], labelled.batch(0, i)) for i in range(3))
        ahead.on_epoch_end()
        assert same(ahead[1], labelled.batch(1, 1))
    preprocessor = FastVLMCausalLM.from_preset("demo").preprocessor
    slices = finetune.EpochSlices(DATA, preprocessor, 8, 3, 4, 0)
    with drawn_ahead.Drawing(1, passes=2).drawn(slices) as twice:
        drawn = [twice[i] for i in range(2)]
        twice.on_epoch_end()
        drawn += [twice[i] for i in range(2)]
    assert same(drawn[0], slices.batch(0, 0)) and same(drawn[2], slices.batch(0, 1))
    assert same(drawn[1], drawn[0])
    assert any(same(drawn[3], earlier) for earlier in (drawn[0], drawn[2]))
    assert drawn_ahead.IN_PLACE.processes == 0
    with drawn_ahead.IN_PLACE.drawn(slices) as in_place:
        assert in_place is slices


def test_batches_hold_no_more_than_the_longest_answer() -> None:
    preprocessor = FastVLMCausalLM.from_preset("demo").preprocessor
    slices = finetune.EpochSlices(DATA, preprocessor, 8, 3, 4, 0)
    whole = slices._slice(0)[1][0]
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
        drawn_ahead.Drawing(1).drawn(broken) as ahead,
        pytest.raises(ValueError, match="work folder"),
    ):
        ahead[0]


@pytest.mark.slow_on_jax
def test_folded_encoder_is_branched_with_the_statistics_of_its_pictures() -> None:
    encoder = FastVLMCausalLM.from_preset("demo").backbone.vision_encoder
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


def test_rate_falls_with_the_clock_and_training_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.0, 30.0, 30.0, 61.0, 61.0])
    monkeypatch.setattr(deadline, "monotonic", lambda: next(times))
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5), loss="mse")
    clock = deadline.Deadline(peak=0.1, minutes=1.0, warmup=2)
    clock.set_model(model)
    rates = []
    for epoch in range(3):
        clock.on_epoch_begin(epoch)
        rates.append(float(model.optimizer.learning_rate))
        assert not getattr(model, "stop_training", False)
        clock.on_epoch_end(epoch)
    np.testing.assert_allclose(rates, [0.05, 0.0505, 0.001], rtol=1e-4)
    assert model.stop_training


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="training compiles slowly there")
def test_stage_by_the_clock_leaves_an_encoder(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"embed_dims": [8, 8, 16], "depths": [1, 1, 1], "num_heads": [1, 1, 1]}
    encoder = FastVLM.from_variant("demo", include_top=False, input_shape=(64, 64, 3), **sizes)
    pretrain.pretrain(
        DATA, tmp_path, deadline.ENDLESS, encoder, steps=2, batch_size=4, minutes=1e-4
    )
    assert (tmp_path / "encoder" / "config.json").is_file()
    assert 2 <= pretrain.completed_epochs(tmp_path) < 9
