"""The demo model's recipe: heads that go on from an encoder, encoders that are exchanged."""

from __future__ import annotations

import argparse
from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques import FastVLM, FastVLMCausalLM
from dl_techniques.data import ConversationDataset
from tools.demo_model import (
    copying,
    finetune,
    grounding,
    layer_fitting,
    options,
    pointing,
    pretrain,
    told_words,
    train,
)
from tools.demo_model.deepen import WRITERS, deepen
from tools.demo_model.pretrain_labels import IGNORED
from tools.demo_model.records import DemoData

pytestmark = pytest.mark.once

DATA = DemoData(None, mix={"scenes": 0.5, "words": 0.5})


def test_background_counts_less_and_gaps_not_at_all() -> None:
    images, targets, weights = pretrain.LabelledPictures(DATA, 8, 1)[0]
    assert images.shape == (8, 64, 64, 3) and images.dtype == "uint8"
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


def test_deeper_decoder_answers_as_before_and_its_new_layers_learn() -> None:
    keras.utils.set_random_seed(0)
    model = FastVLMCausalLM.from_preset("demo")
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


def test_raised_embeddings_leave_the_head_as_it_is() -> None:
    model = FastVLMCausalLM.from_preset("demo")
    decoder = model.backbone.text_backbone
    stream = np.random.default_rng(0).standard_normal((1, 3, decoder.hidden_dim)).astype("float32")

    def logits() -> np.ndarray:
        return np.asarray(
            keras.ops.convert_to_numpy(
                decoder.token_embedding(decoder.layer_norm(stream), reverse=True)
            )
        )

    before, table = logits(), keras.ops.convert_to_numpy(decoder.token_embedding.embeddings).copy()
    factor = grounding.raise_embeddings(model, 0.7)
    raised = keras.ops.convert_to_numpy(decoder.token_embedding.embeddings)
    np.testing.assert_allclose(raised, factor * table, rtol=1e-5)
    assert np.isclose(np.sqrt(np.square(raised).mean()), 0.7, rtol=1e-4)
    np.testing.assert_allclose(logits(), before, atol=1e-5 * np.abs(before).max())


@pytest.mark.slow_on_jax
def test_rows_of_a_picture_take_on_the_words_of_what_is_in_them() -> None:
    keras.utils.set_random_seed(0)
    model = FastVLMCausalLM.from_preset("demo")
    pictures = DemoData(None, mix={"scenes": 1.0})
    images, targets, weights = pretrain.LabelledPictures(pictures, 32, 1, seed=9)[0]
    seen = weights["colour"].reshape(32, -1) > 0
    words = grounding.colour_table(model, 1.0)[targets["colour"].reshape(32, -1)[seen]]

    def likeness() -> float:
        vision = model.backbone.vision_encoder(images, training=False)
        rows = keras.ops.convert_to_numpy(model.backbone.projector(vision)).reshape(32, 16, -1)
        found = rows[seen]
        lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(words, axis=-1)
        return float(((found * words).sum(-1) / lengths).mean())

    before = likeness()
    grounding.name_objects(model, pictures, 3.0, steps=40, batch_size=8)
    assert likeness() > before + 0.05


@pytest.mark.slow_on_jax
def test_first_layer_looks_at_what_a_word_names() -> None:
    """Shapes on plain grounds, the shipped encoder; the noun's row looks at its objects' cells."""
    keras.utils.set_random_seed(0)
    shapes = DemoData(None, mix={"scenes": 1.0})
    model = pointing.add_pointing_layer(
        FastVLMCausalLM.from_preset("demo"), shapes, pictures=640, epochs=50, questions=320
    )
    backbone = model.backbone
    layer = backbone.text_backbone.transformer_layers[0]
    writers = [keras.ops.convert_to_numpy(w) for w in layer.weights if w.path.endswith(WRITERS)]
    assert sorted(bool(np.any(w)) for w in writers) == [False, True]
    assert said_of_what_is_meant(model, shapes) > 0.35
    shares = []
    for number in range(24):
        scene = shapes.sample("scenes", "train", number, np.random.default_rng((5, number))).fact
        for name in {thing.name for thing in scene.things}:
            there = np.zeros((4, 4), bool)
            for thing in scene.things:
                there[thing.cell] |= thing.name == name
            token = model.preprocessor.tokenizer(f" {name}")[-1]
            rows = backbone.image_embedding.embed(scene.image[None] / np.float32(255))
            word = backbone.token_embedding(np.array([[token]]))
            inputs = layer._self_attention_layernorm(keras.ops.concatenate([rows, word], 1))
            attention = layer._self_attention_layer
            query, key = (
                keras.ops.convert_to_numpy(attention.rotary_embedding_layer(dense(inputs)))[0, :, 0]
                for dense in (attention._query_dense, attention._key_dense)
            )
            scores = np.exp(key @ query[-1] * query.shape[-1] ** -0.5)
            shares.append(scores[:16][there.ravel()].sum() / scores.sum())
    assert len(shares) > 30 and np.mean(shares) > 0.5
    pointing.hold(model)
    held = {v.path.split("/")[-2] for v in layer.non_trainable_variables}
    assert held == {"query", "key", "value", "self_attention_layernorm"}
    assert not backbone.projector.trainable_variables
    copied = copying.add_copying_layer(model, shapes, records=192)
    assert said_of_what_is_meant(copied, shapes, number=1) > 0.2


def said_of_what_is_meant(model: FastVLMCausalLM, data: DemoData, number: int = 0) -> float:
    """How much nearer a layer's words are to the object asked for than to others.

    The first layer's at the word that names it, the second's in the row of the answer.
    """
    said, meant = [], []
    for seed in range(1000, 1060):
        asked = told_words.asked_word(model, data, np.random.default_rng(seed), seed)
        if asked is None:
            continue
        image, question, token, words = asked
        inputs = model.preprocessor.generate_preprocess(
            {"prompts": [question], "images": image[None, None]}, sequence_length=48
        )
        layer = model.backbone.text_backbone.transformer_layers[number]
        output = layer._self_attention_layer._output_dense
        mask = np.asarray(inputs["padding_mask"])
        with layer_fitting.captured(output) as heads:
            stream = layer_fitting.run_first_layer(model, inputs)
            if number:
                layer(stream, decoder_padding_mask=keras.ops.convert_to_tensor(mask))
        named = np.flatnonzero(np.asarray(inputs["token_ids"])[0] == token)[-1]
        at = np.flatnonzero(mask[0])[-1] if number else named
        kernel = keras.ops.convert_to_numpy(output.kernel)
        said.append(heads[0][0, at].ravel() @ kernel.reshape(-1, kernel.shape[-1]))
        meant.append(words)
    assert len(said) > 30
    ours, theirs = (np.stack(part) - np.mean(part, 0) for part in (said, meant))
    ours, theirs = (part / np.linalg.norm(part, axis=-1, keepdims=True) for part in (ours, theirs))
    likeness = ours @ theirs.T
    right = np.diag(likeness)
    return float(right.mean() - (likeness.sum() - right.sum()) / (likeness.size - len(right)))


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


def test_mix_is_read() -> None:
    assert options.parse_mix("scenes=0.6,words=0.4") == {"scenes": 0.6, "words": 0.4}
    with pytest.raises(argparse.ArgumentTypeError, match="films"):
        options.parse_mix("films=1")


def test_no_epochs_need_an_earlier_encoder(tmp_path: Path) -> None:
    folders = ["--work", str(tmp_path), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        train.main([*folders, "--pretrain-epochs", "0"])
    assert not list(tmp_path.iterdir())
