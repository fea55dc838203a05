"""The stage of the demo model's recipe in which the encoder learns to read smaller print."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques import FastVLM
from dl_techniques.training import Optimizer, StageSettings
from recipes.demo.draw.records import DemoData
from recipes.demo.stages import average, reading
from recipes.demo.stages.pretrain import as_floats
from tests.tools.one_tower import one_tower

pytestmark = pytest.mark.once

OTHERS = DemoData(None, mix={"scenes": 1.0})


@pytest.fixture
def encoder() -> FastVLM:
    encoder = FastVLM.from_variant("demo", include_top=False, input_shape=(64, 64, 3))
    encoder.reparameterize(fold=True)
    return encoder


def test_batches_are_words_with_targets_then_other_pictures() -> None:
    batches = reading.WordsAndOthers(OTHERS, 6, 4, reading.LAST_HEADS, seed=3)
    images, targets, weights = batches.batch(2, 5)
    start = (2 * len(batches) + 5) * 6
    for row in range(6):
        kind = "words" if row < 4 else "scenes"
        image, told = OTHERS.make_labelled(kind, "train", start + row, 3)
        np.testing.assert_array_equal(images[row], image)
        if row < 4:
            np.testing.assert_array_equal(targets["spelling"][row], told["spelling"])
    assert set(targets) == set(weights) == {"letters", "spelling", "kept"}
    assert len(targets["letters"]) == len(weights["letters"]) == 4
    np.testing.assert_array_equal(weights["letters"][targets["letters"] > 0], 1)
    assert (targets["letters"] > 0).sum() >= 10 and weights["letters"].min() < 0.1


@pytest.mark.parametrize("whole", [False, True])
def test_kept_is_the_distance_of_the_other_pictures_maps(encoder: FastVLM, whole: bool) -> None:
    before = FastVLM.from_config(encoder.get_config())
    before.set_weights(encoder.get_weights())
    images = reading.WordsAndOthers(OTHERS, 6, 4, reading.EARLY_HEADS).batch(0, 0)[0]
    model = reading.build(encoder, before, as_floats(images), 4, whole)
    outputs = model.predict_on_batch(images)
    stage = encoder.stages[-1 if whole else -2]
    assert outputs["kept"].shape == (2, *stage.output.shape[1:])
    assert np.abs(outputs["kept"]).max() < 1e-3
    assert outputs["strokes"].shape == (4, 8, 8, 2, 27)
    assert set(outputs) == {"strokes", "kept"} | (set(reading.LAST_HEADS) if whole else set())
    stem = encoder.get_layer("stem")
    stem.set_weights([20.0 * value for value in stem.get_weights()])
    stray = model.predict_on_batch(images)["kept"]
    taps = [keras.Model(m.input, m.stages[-1 if whole else -2].output) for m in (before, encoder)]
    old, new = (tap.predict_on_batch(as_floats(images)) for tap in taps)
    expected = (new - old)[4:] / (old.std((0, 1, 2)) + 1e-3)
    np.testing.assert_allclose(stray, expected, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected).max() > 0.1


def test_the_others_maps_are_kept_as_strongly_as_asked(encoder: FastVLM) -> None:
    before = FastVLM.from_config(encoder.get_config())
    before.set_weights([20 * value for value in encoder.get_weights()])
    batch = reading.WordsAndOthers(OTHERS, 6, 4, reading.EARLY_HEADS).batch(0, 0)
    model = reading.build(encoder, before, as_floats(batch[0]), 4, whole=False)
    losses = []
    for weight in (0.0, 3.0):
        model.compile(keras.optimizers.SGD(0.0), **reading.losses(model, weight))
        losses.append(model.test_on_batch(*batch, return_dict=True))
    difference = losses[1]["loss"] - losses[0]["loss"]
    assert difference == pytest.approx(3 * losses[0]["kept_loss"], rel=1e-3)
    assert losses[0]["kept_loss"] > 0.1


@pytest.mark.slow_on_jax
def test_first_stages_learn_alone_then_all(
    encoder: FastVLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "EPOCH_STEPS", 1)
    monkeypatch.setattr(reading, "HEAD_STEPS", 2)

    def values() -> dict[str, np.ndarray]:
        return {v.path: np.array(keras.ops.convert_to_numpy(v)) for v in encoder.weights}

    before, start = reading.copy_of(encoder), values()
    last = {path for path in start if {"stage_3", "downsample_2"} & set(path.split("/")[:2])}
    for whole in (False, True):
        settings = StageSettings("read", steps=2, batch_size=6, optimizer=Optimizer(average=0.5))
        taught = reading.Reading(whole, words=4)
        reading.read(encoder, before, OTHERS, taught, settings, tmp_path / str(whole))
        moved = {path for path, value in values().items() if np.any(value != start[path])}
        assert any("stem" in path for path in moved) and bool(last & moved) == whole
    assert encoder.folded


@pytest.mark.parametrize(("share", "mean"), [((), 2.0), ((0.7,), 2.4)])
def test_mean_of_start_and_trained(share: tuple[float, ...], mean: float, tmp_path: Path) -> None:
    model = one_tower()
    model.save_to_preset(tmp_path / "start")
    before = model.get_weights()
    model.set_weights([3 * value for value in before])
    average.average_with_start(model, tmp_path / "start", *share)
    for now, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_allclose(now, mean * value, rtol=1e-5)
