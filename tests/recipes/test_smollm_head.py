"""The recipe's parts on a tiny language model: what learns, and that it is what answers."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques.checkpoints.language import build_decoder, decoder_config
from dl_techniques.models.vlm.fast_vlm import (
    FastVLMBackbone,
    FastVLMCausalLM,
    FastVLMCausalLMPreprocessor,
    FastVLMImageConverter,
    FastVLMTokenizer,
)
from recipes.smollm_head import model as parts
from recipes.smollm_head import train
from recipes.smollm_head.data import Questions, encode
from recipes.smollm_head.evaluate import report
from tests.helpers import numbers, relative_difference

pytestmark = pytest.mark.once

CONFIG = {
    "model_type": "llama",
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def questions() -> Questions:
    images = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3)).astype("uint8")
    items = [
        (0, "colour", "what color?", "red"),
        (2, "shape", "what is it?", "a circle"),
        (1, "colour", "what is the color?", "teal"),
    ]
    return Questions(images, items)


@pytest.fixture(scope="module")
def vlm() -> FastVLMCausalLM:
    tokenizer = FastVLMTokenizer.from_texts(["what color?", "red circle teal"] * 3, 290)
    picture = keras.Input((16, 16, 3))
    encoder = keras.Model(picture, keras.layers.Conv2D(5, 8, 8, name="patches")(picture))
    backbone = FastVLMBackbone(encoder, build_decoder(decoder_config(CONFIG)))
    preprocessor = FastVLMCausalLMPreprocessor(
        tokenizer, FastVLMImageConverter(16), 64, num_image_tokens=4, system_prompt=None
    )
    return FastVLMCausalLM(backbone, preprocessor)


def test_what_is_learned_is_the_answer_and_its_end(
    vlm: FastVLMCausalLM, questions: Questions
) -> None:
    encoded = encode(vlm.preprocessor, questions)
    tokenizer = vlm.preprocessor.tokenizer
    for i, (_, _, question, answer) in enumerate(questions.items):
        learned = encoded.targets[i][encoded.weights[i] > 0].tolist()
        assert tokenizer.detokenize(learned) == f"{answer}<|im_end|>"
        ids = encoded.token_ids[i][encoded.padding_mask[i]]
        assert question in tokenizer.detokenize(ids)
        assert (ids[encoded.vision_indices[i]] == tokenizer.image_token_id).all()
        places = encoded.places[i][encoded.weights[i] > 0]
        assert ids[places + 1].tolist() == learned


def test_the_learner_is_the_model_and_only_its_projector_learns(
    vlm: FastVLMCausalLM, questions: Questions
) -> None:
    encoded = encode(vlm.preprocessor, questions)
    features = parts.features_of(vlm, questions.images)
    parts.begin_well(vlm, features, [["red"], [], ["teal", "circle"]])
    learner = parts.learner(vlm)
    projector = {id(v) for v in vlm.backbone.projector.weights}
    assert {id(v) for v in learner.trainable_variables} == projector
    inputs = parts.inputs_of(encoded, features, questions)
    converter = vlm.preprocessor.image_converter
    pictures = np.stack([questions.images[item[0]] for item in questions.items])
    whole = vlm(
        {
            "images": converter.scale_pixels(pictures)[:, None],
            "vision_indices": encoded.vision_indices,
            "token_ids": encoded.token_ids,
            "padding_mask": encoded.padding_mask.astype("int32"),
        }
    )
    picked = np.take_along_axis(numbers(whole), encoded.places[..., None], axis=1)
    assert relative_difference(learner(inputs), picked) < 1e-5
    frozen = numbers(vlm.backbone.token_embedding.embeddings).copy()
    before = numbers(vlm.backbone.projector.weights[0]).copy()
    learner.fit(inputs, encoded.targets, sample_weight=encoded.weights, verbose=0)
    assert np.abs(numbers(vlm.backbone.projector.weights[0]) - before).max() > 0
    np.testing.assert_array_equal(numbers(vlm.backbone.token_embedding.embeddings), frozen)


def test_a_new_projector_gives_rows_near_the_words(
    vlm: FastVLMCausalLM, questions: Questions
) -> None:
    features = 1000 * parts.features_of(vlm, questions.images)
    words = [["red"], ["teal", "circle"], []]
    parts.begin_well(vlm, features, words)
    rows = numbers(vlm.backbone.projector(features.reshape(3, 4, -1)))[:2].mean(axis=1)
    tokenizer = vlm.preprocessor.tokenizer
    table = numbers(vlm.backbone.token_embedding.embeddings)
    ids = [[i for w in names for i in tokenizer.tokenize_plain(f" {w}")] for names in words[:2]]
    wanted = np.stack([table[row].mean(axis=0) for row in ids])
    distance = np.linalg.norm(rows[:, None] - wanted[None], axis=-1)
    assert (distance.argmin(axis=1) == [0, 1]).all()
    assert (np.diag(distance) < 0.5 * np.linalg.norm(wanted[0] - wanted[1])).all()


def test_the_report_names_every_way_of_answering() -> None:
    hits = {"model": np.array([True, True, False]), "question only": np.array([True, False, False])}
    line = report({"all": hits}).splitlines()[-1]
    assert line.startswith("| all | 3 | 66.7 (") and line.endswith("| 33.3 |")


def test_training_ends_by_the_clock_and_goes_on_in_its_folder(
    vlm: FastVLMCausalLM, questions: Questions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Questions(questions.images, questions.items, [["red"], ["teal"], ["teal", "circle"]])
    words = ["--gguf", "none", "--data", "none", "--batch", "2", "--work", str(tmp_path)]
    options = train.parser().parse_args([*words, "--minutes", "1e-4", "--types", "colour"])
    monkeypatch.setattr(train, "SEGMENT", 2)
    frozen = numbers(vlm.backbone.token_embedding.embeddings).copy()
    train.train(vlm, told, options)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["learning_rate"] == pytest.approx(options.rate)
    trained = [numbers(v) for v in vlm.backbone.projector.weights]
    np.testing.assert_array_equal(numbers(vlm.backbone.token_embedding.embeddings), frozen)

    def fail(self: train.Drawn, epoch: int, index: int) -> None:
        raise AssertionError("what is finished was trained again")

    monkeypatch.setattr(train.Drawn, "batch", fail)
    train.train(vlm, told, options)
    for ours, theirs in zip(vlm.backbone.projector.weights, trained, strict=True):
        np.testing.assert_array_equal(numbers(ours), theirs)


def test_questions_come_in_another_order_in_each_epoch(
    vlm: FastVLMCausalLM, questions: Questions
) -> None:
    encoded = encode(vlm.preprocessor, questions)
    places = {"place": np.arange(3)}
    drawn = train.Drawn(encoded, places, 1, seed=0)
    epochs = [
        [int(drawn.batch(epoch, index)[0]["place"][0]) for index in range(len(drawn))]
        for epoch in range(6)
    ]
    assert all(sorted(epoch) == [0, 1, 2] for epoch in epochs) and len(set(map(tuple, epochs))) > 1
    part, targets, weights = drawn.batch(0, 1)
    np.testing.assert_array_equal(targets, encoded.targets[part["place"]])
    np.testing.assert_array_equal(weights, encoded.weights[part["place"]])
