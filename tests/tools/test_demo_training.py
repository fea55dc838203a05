"""The demo model's recipe: heads that go on from an encoder, encoders that are exchanged."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques import FastVLM, FastVLMCausalLM
from dl_techniques.data import ConversationDataset
from recipes.demo.draw.pretrain_labels import IGNORED
from recipes.demo.draw.records import DemoData
from recipes.demo.stages import finetune, pretrain
from recipes.demo.stages.deepen import WRITERS, deepen
from tests.tools.one_tower import one_tower

pytestmark = pytest.mark.once

DATA = DemoData(None, mix={"scenes": 0.5, "words": 0.5})


def test_background_counts_less_and_gaps_not_at_all() -> None:
    images, targets, weights = pretrain.LabelledPictures(DATA, 8, 1).batch(0, 0)
    assert images.shape == (8, 64, 64, 3) and images.dtype == "uint8"
    assert set(targets) == set(weights) == set(pretrain.CLASSES)
    assert not weights["name"].any() and not weights["clothing"].any()
    for key, (_, weight) in pretrain.BACKGROUND.items():
        assert set(np.unique(weights[key])) == {0, np.float32(weight), 1}
    assert set(np.unique(weights["x"])) == {0, 1}
    assert min(target.min() for target in targets.values()) == 0 != IGNORED


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="training compiles slowly there")
def test_projector_follows_an_exchanged_encoder(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = one_tower()
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
    vision.set_weights(FastVLM.from_preset("demo").get_weights())
    model.backbone.projector.set_weights(projector)
    pictures = pretrain.LabelledPictures(DATA, 8, 60, seed=5)
    finetune.exchange_encoder(model, other, pictures, tmp_path)
    assert np.square(rows() - before).mean() < 0.95 * disturbed
    np.testing.assert_array_equal(vision.get_weights()[0], weights[0])


def test_deeper_decoder_answers_as_before_and_its_new_layers_learn() -> None:
    keras.utils.set_random_seed(0)
    model = one_tower()
    layers = len(model.backbone.text_backbone.transformer_layers)
    deeper = deepen(model, layers + 2)
    records = finetune.Conversations(DemoData(None, mix={"scenes": 1.0}), 2, seed=3)
    x, y, weights = ConversationDataset(records, deeper.preprocessor, 2, shuffle=False)[0]
    deeper.preprocessor = None  # the batch is made already
    before = keras.ops.convert_to_numpy(model(x, training=False))
    after = keras.ops.convert_to_numpy(deeper(x, training=False))
    np.testing.assert_allclose(after, before, atol=1e-5 * np.abs(before).max())
    if keras.backend.backend() == "jax":
        return  # training compiles slowly there
    new = deeper.backbone.text_backbone.transformer_layers[3]
    silent = [w for w in new.weights if w.path.endswith(WRITERS)]
    assert len(silent) == 2 and not any(np.any(keras.ops.convert_to_numpy(w)) for w in silent)
    deeper.backbone.vision_encoder.trainable = False
    deeper.compile(keras.optimizers.Adam(1e-3))
    deeper.train_on_batch(x, y, weights)
    attention, feed_forward = (keras.ops.convert_to_numpy(w) for w in silent)
    values = keras.ops.convert_to_numpy(new._self_attention_layer._value_dense.kernel).any(0)
    read = np.repeat(values, len(attention) // len(values), 0)  # some fitted heads use a part only
    assert read.mean() > 0.5
    np.testing.assert_array_equal(attention.any(-1), read)
    assert feed_forward.any(-1).all()


def test_layers_to_go_on_with_are_counted() -> None:
    model = FastVLMCausalLM.from_preset("demo")
    layers = len(model.backbone.text_backbone.transformer_layers)
    for wrong in (layers - 1, 2 * layers + 1):
        with pytest.raises(ValueError, match=f"{wrong} layers from {layers}"):
            deepen(model, wrong)


def test_what_tells_most_comes_last_in_most_conversations() -> None:
    data = DemoData(None, mix={"scenes": 1.0}, lookups=True)
    records = finetune.Conversations(data, 60, seed=3)
    orders = []
    for number in range(len(records)):
        messages = records[number]["messages"]
        answers = [m["content"] for m in messages if m["role"] == "assistant"]
        closed = [answer in ("yes", "no") for answer in answers]
        if any(closed) and not all(closed):
            orders.append(closed == sorted(closed, reverse=True))
    assert len(orders) > 15 and 0.6 < np.mean(orders) < 1
