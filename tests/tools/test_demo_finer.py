"""The demo model's recipe: a trained model is shown a finer map and answers as before."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques import FastVLM, FastVLMBackbone, FastVLMCausalLM
from dl_techniques.training import StageSettings
from recipes.demo.draw.records import DemoData
from recipes.demo.stages import average, pretrain, reading
from recipes.demo.stages.finer import widened_like, with_finer_map
from recipes.demo.stages.legible import make_legible
from tests.helpers import numbers, relative_difference
from tests.models.vlm.fast_vlm.small_model import make_decoder, make_preprocessor, randomize

pytestmark = pytest.mark.once

DATA = DemoData(None, mix={"scenes": 0.5, "words": 0.5})
SIZES = {"embed_dims": [8, 8, 16], "depths": [1, 1, 1], "num_heads": [1, 1, 1]}


def small_model(seed: int = 0, **arguments: int) -> FastVLMCausalLM:
    encoder = FastVLM.from_variant(
        "demo", include_top=False, input_shape=(64, 64, 3), **SIZES, **arguments
    )
    backbone = FastVLMBackbone(encoder, make_decoder())
    randomize(backbone, seed)
    model = FastVLMCausalLM(backbone, make_preprocessor(64))
    model.reparameterize(fold=True)
    return model


def pictures(kind: str = "words") -> np.ndarray:
    drawn = [DATA.make_labelled(kind, "train", i, 1)[0] for i in range(4)]
    return np.stack(drawn).astype("float32")[:, None] / 255


def rows(model: FastVLMCausalLM) -> np.ndarray:
    return numbers(model.backbone.image_embedding(pictures()))


def test_answers_stay_and_the_finer_map_is_learnt() -> None:
    model = small_model()
    wide = with_finer_map(model, 12, DATA)
    backbone = wide.backbone
    assert backbone.vision_encoder.feature_dim == 16 + 4 * 8
    assert backbone.projector_dim == model.backbone.projector.hidden_dim + 12
    assert relative_difference(rows(wide), rows(model)) < 1e-6
    features = numbers(backbone.vision_encoder(pictures("scenes")[:, 0]))
    kernel, bias = (numbers(value) for value in backbone.projector.dense_1.weights)
    units = (features @ kernel + bias)[..., -12:]
    assert np.abs(units.mean()) < 0.5 and 0.3 < units.std() < 2
    fitted = keras.Sequential(
        [keras.Input((64, 64, 3)), backbone.vision_encoder, backbone.projector]
    )
    backbone.vision_encoder.trainable = False
    fitted.compile(keras.optimizers.SGD(0.1), loss="mse")
    before = [numbers(value) for value in backbone.projector.weights]
    fitted.train_on_batch(pictures()[:, 0], np.ones((4, 4, 4, 32)))
    moved = [numbers(v) - b for v, b in zip(backbone.projector.weights, before, strict=True)]
    assert moved[0][16:, :-12].any(axis=1).all() and moved[2][-12:].any(axis=1).all()
    with pytest.raises(ValueError, match="shows a finer map already"):
        with_finer_map(wide, 12, DATA)


def test_mean_with_a_start_that_has_no_finer_map(tmp_path: Path) -> None:
    start = small_model(1)
    start.save_to_preset(tmp_path)
    trained = with_finer_map(small_model(2), 12, DATA)
    randomize(trained.backbone.projector, 3)
    same = widened_like(start, trained)
    assert relative_difference(rows(same), rows(start)) < 1e-6
    assert widened_like(trained, trained) is trained
    wanted = [
        0.75 * numbers(ours) + 0.25 * numbers(theirs)
        for ours, theirs in zip(trained.weights, same.weights, strict=True)
    ]
    average.average_with_start(trained, tmp_path, 0.75)
    for now, value in zip(trained.weights, wanted, strict=True):
        np.testing.assert_allclose(numbers(now), value, rtol=1e-5, atol=1e-6)


def test_pretraining_reads_the_stages_maps_alone() -> None:
    encoder = small_model(multi_scale=1).backbone.vision_encoder
    heads = pretrain.build(encoder)
    assert heads.get_layer("letters_dense").kernel.shape[0] == 16
    assert heads.get_layer("strokes_dense").kernel.shape[0] == 8


def test_rows_are_made_legible_and_others_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = DemoData(None, mix={"scenes": 1.0})
    before = small_model(4)
    model = with_finer_map(before, 12, DATA)
    decoder = [numbers(value) for value in model.backbone.text_backbone.weights]
    known = [numbers(value) for value in before.backbone.vision_encoder.weights]
    monkeypatch.setattr(reading, "HEAD_STEPS", 40)
    monkeypatch.setattr(reading, "EPOCH_STEPS", 5)
    settings = StageSettings("rows", steps=5, batch_size=6)
    make_legible(model, before, others, reading.Reading(words=4), settings, tmp_path)
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"letters_loss", "spelling_loss", "strokes_loss", "kept_loss"} <= set(line)
    projector = model.backbone.projector
    assert numbers(projector.dense_1.kernel)[16:, :-12].any(axis=1).all()
    assert numbers(projector.dense_2.kernel)[-12:].any(axis=1).all()
    for old, now in ((before, known), (model, decoder)):
        part = old.backbone.vision_encoder if now is known else old.backbone.text_backbone
        for value, then in zip(part.weights, now, strict=True):
            np.testing.assert_array_equal(numbers(value), then)


def test_mean_of_runs_that_went_apart(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "other", "start")]
    models = [small_model(seed) for seed in (5, 6, 7)]
    for model, folder in zip(models, folders, strict=True):
        model.save_to_preset(folder)
    names = [str(folder) for folder in folders]
    average.main([*names[:2], "--out", str(tmp_path / "out"), "--start", names[2], "--mean", "0.8"])
    got = FastVLMCausalLM.from_preset(str(tmp_path / "out"), dtype="float32")
    for now, *values in zip(got.weights, *(model.weights for model in models), strict=True):
        one, other, start = (numbers(value) for value in values)
        wanted = 0.4 * (one + other) + 0.2 * start
        np.testing.assert_allclose(numbers(now), wanted, rtol=2e-3, atol=1e-3)
    with_finer_map(models[0], 12, DATA).save_to_preset(tmp_path / "wide")
    with pytest.raises(ValueError, match="no mean can be taken"):
        average.mean_of([folders[0], tmp_path / "wide"])
