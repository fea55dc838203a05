"""The demo model's recipe: heads that go on from an encoder, encoders that are exchanged."""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques import FastVLM, FastVLMCausalLM
from tools.demo_model import finetune, pretrain, train
from tools.demo_model.pretrain_labels import IGNORED
from tools.demo_model.records import DemoData

DATA = DemoData(None, mix={"scenes": 0.5, "words": 0.5})


def test_background_counts_less_and_gaps_not_at_all() -> None:
    images, targets, weights = pretrain.LabelledPictures(DATA, 8, 1)[0]
    assert images.shape == (8, 64, 64, 3) and images.max() <= 1
    assert set(targets) == set(weights) == set(pretrain.CLASSES)
    assert not weights["name"].any() and not weights["clothing"].any()
    for key, (_, weight) in pretrain.BACKGROUND.items():
        assert set(np.unique(weights[key])) == {0, np.float32(weight), 1}
    assert set(np.unique(weights["x"])) == {0, 1}
    assert min(target.min() for target in targets.values()) == 0 != IGNORED


def small_encoder() -> FastVLM:
    """An encoder with the map of the demo's, 4 x 4 cells of 64 pixels."""
    sizes = {"embed_dims": [8, 8, 16], "depths": [1, 1, 1], "num_heads": [1, 1, 1]}
    return FastVLM.from_variant("demo", include_top=False, input_shape=(64, 64, 3), **sizes)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="training compiles slowly there")
def test_training_goes_on_from_an_encoder_and_is_not_done_twice(tmp_path: Path) -> None:
    kept = small_encoder()
    before = [w.copy() for w in kept.get_weights()]
    further = pretrain.pretrain(DATA, tmp_path / "a", 1, start=kept, steps=2, batch_size=4)
    changes = [np.abs(a - b).max() for a, b in zip(before, further.get_weights(), strict=True)]
    assert max(changes) > 0
    saved = pretrain.load_encoder(tmp_path / "a" / "encoder")
    again = pretrain.pretrain(DATA, tmp_path / "a", 1, start=kept, steps=2, batch_size=4)
    for ours, theirs in zip(saved.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    kept_as_is = pretrain.pretrain(DATA, tmp_path / "b", 0, start=further)
    assert kept_as_is is further and (tmp_path / "b" / "encoder" / "config.json").is_file()


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="training compiles slowly there")
def test_projector_follows_an_exchanged_encoder() -> None:
    keras.utils.set_random_seed(0)
    model = FastVLMCausalLM.from_preset("demo")
    vision = model.backbone.vision_encoder
    rng = np.random.default_rng(0)
    weights = [
        w * (1 + 0.05 * rng.standard_normal(w.shape).astype("float32"))
        for w in vision.get_weights()
    ]
    other = FastVLM.from_config(vision.get_config())
    other.set_weights(weights)
    drawn = [DATA.make_labelled("scenes", "train", i, 1)[0] for i in range(16)]
    images = np.stack(drawn).astype("float32") / 255

    def rows() -> np.ndarray:
        return keras.ops.convert_to_numpy(model.backbone.projector(vision(images)))

    before, projector = rows(), model.backbone.projector.get_weights()
    vision.set_weights(weights)
    disturbed = np.square(rows() - before).mean()
    vision.set_weights(FastVLMCausalLM.from_preset("demo").backbone.vision_encoder.get_weights())
    model.backbone.projector.set_weights(projector)
    finetune.exchange_encoder(model, other, DATA, steps=60, batch_size=8)
    assert np.square(rows() - before).mean() < 0.95 * disturbed
    np.testing.assert_array_equal(vision.get_weights()[0], weights[0])


def test_mix_is_read() -> None:
    assert train.parse_mix("scenes=0.6,words=0.4") == {"scenes": 0.6, "words": 0.4}
    with pytest.raises(argparse.ArgumentTypeError, match="films"):
        train.parse_mix("films=1")


def test_no_epochs_need_an_earlier_encoder(tmp_path: Path) -> None:
    folders = ["--work", str(tmp_path), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        train.main([*folders, "--pretrain-epochs", "0"])
    assert not list(tmp_path.iterdir())
