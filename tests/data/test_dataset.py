"""The data set that feeds `fit`: constant shapes, repeatable orders, any number of threads."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from dl_techniques.data import ConversationDataset, load_image
from dl_techniques.data.dataset import answers_alone
from dl_techniques.errors import ImageError, PromptError
from dl_techniques.models.vlm.fast_vlm.prompt.image_converter import FastVLMImageConverter
from dl_techniques.models.vlm.fast_vlm.prompt.preprocessor import FastVLMCausalLMPreprocessor
from dl_techniques.models.vlm.fast_vlm.prompt.tokenizer import FastVLMTokenizer

LENGTH = 96


@pytest.fixture(scope="module")
def preprocessor() -> Any:
    texts = ["system\nYou are a helpful assistant. user\n assistant\n red"] * 4
    return FastVLMCausalLMPreprocessor(
        FastVLMTokenizer.from_texts(texts, vocabulary_size=330),
        FastVLMImageConverter(8),
        sequence_length=LENGTH,
        num_image_tokens=4,
    )


def picture(seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (5, 9, 3), dtype="uint8")


def records(count: Any) -> Any:
    return [
        {"prompts": f"{i}?", "responses": "red " * (1 + i % 3), "images": picture(i)}
        for i in range(count)
    ]


def test_dataset_batches(preprocessor: Any) -> None:
    plain = ConversationDataset(records(7), preprocessor, batch_size=3, shuffle=False)
    assert len(plain) == 3
    x, y, weight = plain[2]
    expected = preprocessor([records(7)[6]])
    np.testing.assert_array_equal(x["token_ids"][0], expected[0]["token_ids"][0])
    np.testing.assert_array_equal(x["images"][0], expected[0]["images"][0])
    np.testing.assert_array_equal(y[0], expected[1][0])
    learned = expected[2][0]
    np.testing.assert_allclose(weight[0], learned * weight.size / learned.sum(), rtol=1e-6)
    assert y.shape == (3, LENGTH) and (weight[1:] == 0).all()
    assert len(ConversationDataset(records(7), preprocessor, 3, drop_remainder=True)) == 2
    with pytest.raises(IndexError):
        plain[3]


def test_answers_alone_are_the_weighted_positions(preprocessor: Any) -> None:
    whole, alone = (
        ConversationDataset(records(4), preprocessor, 3, shuffle=False, max_answer_tokens=most)
        for most in (None, 9)
    )
    for index in range(2):
        (x, y, weight), (inputs, targets, shares) = whole[index], alone[index]
        positions = inputs.pop("answer_positions")
        assert positions.shape == targets.shape == shares.shape == (3, 9)
        for name, array in inputs.items():
            np.testing.assert_array_equal(array, x[name])
        for row in range(3):
            (expected,) = np.nonzero(weight[row])
            count = len(expected)
            assert positions[row].tolist() == expected.tolist() + [0] * (9 - count)
            assert targets[row, :count].tolist() == y[row, expected].tolist()
            assert (shares[row, count:] == 0).all()
            of_all = weight[row, expected] * 9 / LENGTH
            np.testing.assert_allclose(shares[row, :count], of_all, rtol=1e-6)
    assert (shares[1:] == 0).all()  # copies that fill the last batch


def test_answers_alone_may_have_more_places_than_there_are_positions() -> None:
    y, weight = np.array([[5, 6, 7], [8, 9, 4]], "int32"), np.float32([[0, 1, 1], [0, 0, 0]])
    positions, targets, shares = answers_alone(y, weight, 4)
    assert positions.tolist() == [[1, 2, 0, 0], [0] * 4]
    assert targets.tolist() == [[6, 7, 5, 5], [8] * 4]
    assert positions.dtype == targets.dtype == "int32" and shares.dtype == "float32"
    np.testing.assert_allclose(shares, [[4 / 3, 4 / 3, 0, 0], [0] * 4])


def test_too_long_an_answer_is_named(preprocessor: Any) -> None:
    first, second = (int(row.learn.sum()) for row in preprocessor.encode(records(2), learn=True))
    dataset = ConversationDataset(
        records(3), preprocessor, 3, shuffle=False, workers=0, max_answer_tokens=first
    )
    told = f"record 1 has {second} answer tokens, more than max_answer_tokens={first}"
    with pytest.raises(PromptError, match=told):
        dataset[0]
    with pytest.raises(ValueError, match="max_answer_tokens=0"):
        ConversationDataset(records(3), preprocessor, max_answer_tokens=0)


def test_dataset_order_is_a_function_of_seed_and_epoch(preprocessor: Any) -> None:
    def tokens(dataset: Any) -> Any:
        return np.concatenate([dataset[i][0]["token_ids"] for i in range(len(dataset))])

    first = ConversationDataset(records(8), preprocessor, batch_size=4, seed=1)
    second = ConversationDataset(records(8), preprocessor, batch_size=4, seed=1)
    before = tokens(first)
    np.testing.assert_array_equal(before, tokens(second))
    first.on_epoch_end()
    after = tokens(first)
    assert (after != before).any()
    assert sorted(after.tolist()) == sorted(before.tolist())
    resumed = ConversationDataset(records(8), preprocessor, batch_size=4, seed=1, epoch=1)
    np.testing.assert_array_equal(after, tokens(resumed))
    other = ConversationDataset(records(8), preprocessor, batch_size=4, seed=2)
    assert (tokens(other) != before).any()


def test_a_token_weighs_alike_whatever_its_row_is_padded_to(preprocessor: Any) -> None:
    """The loss of a batch, a mean over all positions, is that over its target tokens."""
    long = [{"prompts": "what? " * (1 + 4 * (i % 2)), "responses": "red"} for i in range(4)]
    options = {"batch_size": 1, "shuffle": False, "workers": 0}
    fixed = ConversationDataset(long, preprocessor, **options)
    bucketed = ConversationDataset(long, preprocessor, length_buckets=(40,), **options)
    alone = ConversationDataset(long, preprocessor, max_answer_tokens=9, **options)
    lengths = {bucketed[i][2].shape[1] for i in range(1, 4)}
    assert lengths == {40, LENGTH}
    for index in range(4):
        for dataset in (fixed, bucketed, alone):
            weight = dataset[index][2]
            assert len(set(weight[weight > 0])) == 1
            np.testing.assert_allclose(weight.mean(), 1, rtol=1e-6)


def test_a_token_weighs_alike_in_all_batches_of_an_update(preprocessor: Any) -> None:
    options = {"shuffle": False, "workers": 0, "length_buckets": (64,)}
    one = ConversationDataset(records(4), preprocessor, 4, **options)[0][2]
    dataset = ConversationDataset(records(8), preprocessor, 2, accumulate=2, **options)
    parts = [dataset[index][2] for index in range(2)]
    counts = [(part > 0).sum() for part in parts]
    assert counts[0] != counts[1]
    for part in parts:  # the optimizer takes the mean of both gradients
        np.testing.assert_allclose(part.max() / part.size / 2, one.max() / one.size, rtol=1e-6)
    with pytest.raises(ValueError, match="accumulate=3 must .* divide the 4 batches"):
        ConversationDataset(records(8), preprocessor, 2, accumulate=3)


def test_dataset_length_buckets(preprocessor: Any) -> None:
    short = len(preprocessor.encode(records(1), learn=True)[0].token_ids)
    buckets = (short - 1, LENGTH)
    dataset = ConversationDataset(
        records(3), preprocessor, batch_size=1, shuffle=False, length_buckets=buckets
    )
    # On TensorFlow the first batch tells Keras that lengths differ.
    first = LENGTH + 1 if keras.config.backend() == "tensorflow" else short - 1
    assert [dataset[i][1].shape[1] for i in range(3)] == [first, LENGTH, LENGTH]
    assert dataset._length(dataset.preprocessor.encode(records(1), learn=True), 1) == short - 1
    assert (dataset[0][0]["vision_indices"] < short - 1).all()
    with pytest.raises(ValueError, match="exceed"):
        ConversationDataset(records(3), preprocessor, length_buckets=(LENGTH + 1,))


def test_dataset_names_the_bad_record(preprocessor: Any) -> None:
    bad = [*records(1), {"prompts": "?", "responses": "x", "images": "absent.png"}]
    dataset = ConversationDataset(bad, preprocessor, batch_size=2, shuffle=False)
    with pytest.raises(ImageError, match="record 1: .*absent.png"):
        dataset[0]
    with pytest.raises(PromptError, match="no batch"):
        ConversationDataset([], preprocessor)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_dataset_is_the_same_with_any_number_of_threads(preprocessor: Any, workers: int) -> None:
    plain = ConversationDataset(records(9), preprocessor, batch_size=2, workers=0)
    threads = ConversationDataset(
        records(9), preprocessor, batch_size=2, workers=workers, max_queue_size=2
    )
    for _ in range(2):
        for i in [0, 1, 2, 3, 4, 2, 0]:
            for mine, theirs in zip(threads[i], plain[i], strict=True):
                keras.tree.map_structure(np.testing.assert_array_equal, mine, theirs)
        plain.on_epoch_end()
        threads.on_epoch_end()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_copy_goes_on_where_the_dataset_is(preprocessor: Any, workers: int) -> None:
    dataset = ConversationDataset(records(5), preprocessor, 2, seed=3, workers=workers)
    dataset.on_epoch_end()
    dataset[0]
    for copied in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert copied.epoch == 1 and (copied._pool is None) == (workers == 0)
        for i in range(3):
            for mine, theirs in zip(copied[i], dataset[i], strict=True):
                keras.tree.map_structure(np.testing.assert_array_equal, mine, theirs)


def test_rows_may_share_one_open_file(preprocessor: Any) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "PNG")
    rows = [{**row, "images": buffer} for row in records(6)]
    shared = ConversationDataset(rows, preprocessor, 1, shuffle=False, workers=4)
    for i in range(6):
        np.testing.assert_array_equal(shared[i][0]["images"], shared[0][0]["images"])


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float64"])
def test_floats_of_the_backend_as_pictures(kind: str) -> None:
    pixels = np.float32([[0.0, 0.5], [0.25, 1.0]])
    tensor = keras.ops.convert_to_tensor(pixels, dtype=kind)
    assert load_image(tensor)[..., 0].tolist() == [[0, 128], [64, 255]]
    with pytest.raises(ImageError, match="divide by 255"):
        load_image(tensor * 2)


def tiny_model(preprocessor: Any) -> Any:
    keras.utils.set_random_seed(0)
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    images = keras.Input((None, 8, 8, 3), name="images")
    hidden = keras.layers.Embedding(preprocessor.tokenizer.vocabulary_size(), 8)(ids)
    hidden = hidden + keras.ops.mean(images, axis=(1, 2, 3, 4), keepdims=True)[:, :, 0, 0]
    logits = keras.layers.Dense(preprocessor.tokenizer.vocabulary_size())(hidden)
    model = keras.Model({"token_ids": ids, "images": images}, logits)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss)
    return model


class TwoInputs(ConversationDataset):
    """What `tiny_model` reads, and nothing else."""

    def __getitem__(self, index: Any) -> Any:
        x, y, weight = super().__getitem__(index)
        return {key: x[key] for key in ("token_ids", "images")}, y, weight


def test_dataset_feeds_fit_and_a_resumed_run_continues_its_order(preprocessor: Any) -> None:
    def run(model: Any, dataset: Any, **options: Any) -> Any:
        seen = []
        note = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: seen.append(dataset.epoch))
        history = model.fit(dataset, shuffle=False, verbose=0, callbacks=[note], **options)
        return seen, history.history["loss"]

    model = tiny_model(preprocessor)
    whole, losses = run(model, TwoInputs(records(5), preprocessor, batch_size=2), epochs=3)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert len(set(whole)) == 3
    resumed = TwoInputs(records(5), preprocessor, batch_size=2, epoch=2)
    assert run(model, resumed, initial_epoch=2, epochs=3)[0] == whole[2:]
    fresh = TwoInputs(records(5), preprocessor, batch_size=2, epoch=2)
    assert run(tiny_model(preprocessor), fresh, initial_epoch=2, epochs=3)[0] == whole[2:]
