"""The stage of the demo model's recipe in which the encoder learns to read smaller print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques import FastVLM, FastVLMCausalLM
from tools.demo_model import average, options, reading, train
from tools.demo_model.pretrain import as_floats
from tools.demo_model.records import DemoData

pytestmark = pytest.mark.once

OTHERS = DemoData(None, mix={"scenes": 1.0})
PLAN = reading.Reading(1e-3, 1e-3, batch_size=6, words=4)


@pytest.fixture
def encoder() -> FastVLM:
    encoder = FastVLM.from_variant("demo", include_top=False, input_shape=(64, 64, 3))
    encoder.reparameterize(fold=True)
    return encoder


def test_batches_are_words_with_targets_then_other_pictures() -> None:
    batches = reading.WordsAndOthers(OTHERS, PLAN, reading.LAST_HEADS, seed=3)
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
    images = reading.WordsAndOthers(OTHERS, PLAN, reading.EARLY_HEADS).batch(0, 0)[0]
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
    batch = reading.WordsAndOthers(OTHERS, PLAN, reading.EARLY_HEADS).batch(0, 0)
    model = reading.build(encoder, before, as_floats(batch[0]), 4, whole=False)
    losses = []
    for weight in (0.0, 3.0):
        reading.compile_model(model, keras.optimizers.SGD(0.0), weight)
        losses.append(model.test_on_batch(*batch, return_dict=True))
    difference = losses[1]["loss"] - losses[0]["loss"]
    assert difference == pytest.approx(3 * losses[0]["kept_loss"], rel=1e-3)
    assert losses[0]["kept_loss"] > 0.1


@pytest.mark.slow_on_jax
def test_first_stages_learn_alone_then_all(
    encoder: FastVLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "EPOCH_STEPS", 1)
    start = {v.path: np.array(keras.ops.convert_to_numpy(v)) for v in encoder.weights}
    trained = reading.read(encoder, OTHERS, PLAN, tmp_path)
    early = FastVLM.from_preset(tmp_path / "early")

    def moved(model: FastVLM) -> set[str]:
        return {
            v.path
            for v in model.weights
            if np.abs(keras.ops.convert_to_numpy(v) - start[v.path]).max() > 0
        }

    last = {path for path in start if path.split("/")[1] in ("stage_3", "downsample_2")}
    assert last and not moved(early) & last and any("stem" in path for path in moved(early))
    assert moved(trained) & last and trained.folded

    def fail(*arguments: Any) -> None:
        raise AssertionError("what is finished was trained again")

    monkeypatch.setattr(reading, "train_part", fail)
    again = reading.read(encoder, OTHERS, PLAN, tmp_path)
    for ours, theirs in zip(again.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("share", "mean"), [((), 2.0), ((0.7,), 2.4)])
def test_mean_of_start_and_trained(share: tuple[float, ...], mean: float) -> None:
    model = FastVLMCausalLM.from_preset("demo", dtype="float32")
    before = model.get_weights()
    model.set_weights([3 * value for value in before])
    average.average_with_start(model, Path("dl_techniques/presets/demo"), *share)
    for now, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_allclose(now, mean * value, rtol=1e-5)


def test_mean_needs_a_whole_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--work", str(tmp_path), "--out", str(tmp_path / "out"), "--mean"])
    assert "--mean is taken with an earlier whole model" in capsys.readouterr().err


def test_minutes_are_two_numbers() -> None:
    assert options.parse_pair("18,24") == (18.0, 24.0)
    with pytest.raises(ValueError, match="unpack"):
        options.parse_pair("18")
