"""predict, evaluate and fit on conversations: no row that was not given, and no row lost."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.data import ConversationDataset
from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.prompt.records import to_records
from dl_techniques.models.vlm.fast_vlm.weighted import Weighted, measuring_dataset
from tests.models.vlm.fast_vlm.small_model import make_model

TALKS = {
    "prompts": ["Why?", "What is this?", "Who?", "why is the cat on it?", "Is it?"],
    "responses": ["a red cube", "the cat", "a ball", "this", "what is a mat"],
}


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


def first(number: Any) -> Any:
    return {key: texts[:number] for key, texts in TALKS.items()}


def alone(model: Any, talks: Any) -> Any:
    """Loss of every conversation by itself."""
    rows = zip(talks["prompts"], talks["responses"], strict=True)
    return [
        model.evaluate({"prompts": p, "responses": r}, batch_size=1, verbose=0)[0] for p, r in rows
    ]


def per_token(model: Any, single: Any, weights: Any = (1, 1, 1, 1, 1), batch_size: int = 2) -> Any:
    """Mean of the batches' losses, each the mean over its target tokens."""
    rows = model.preprocessor.encode(first(len(single)), learn=True)
    targets = np.array([row.learn[1:].sum() for row in rows])
    sums = np.array(single) * targets * np.array(weights[: len(single)])
    starts = range(0, len(single), batch_size)
    return np.mean(
        [sums[i : i + batch_size].sum() / targets[i : i + batch_size].sum() for i in starts]
    )


def test_predict_gives_a_row_for_each_conversation(model: Any) -> None:
    whole = model.predict(first(5), batch_size=5, verbose=0)
    assert whole.shape[0] == 5
    for number, size in ((2, None), (3, 2), (5, 4)):
        logits = model.predict(first(number), batch_size=size, verbose=0)
        np.testing.assert_allclose(logits, whole[:number], atol=1e-4)
    ready = ConversationDataset(to_records(first(3)), model.preprocessor, 2, shuffle=False)
    assert model.predict(ready, verbose=0).shape[0] == 3


def test_the_loss_is_the_mean_over_the_conversations(model: Any) -> None:
    """Whatever the batch: copies that fill one up do not count."""
    single = alone(model, first(5))
    assert max(single) > 1.1 * min(single)
    for number, size in ((2, None), (5, 2), (5, 4)):
        loss, accuracy = model.evaluate(first(number), batch_size=size, verbose=0)
        np.testing.assert_allclose(loss, np.mean(single[:number]), rtol=1e-4)
        assert 0 <= accuracy <= 1


def test_validation_split_holds_the_last_ones_out(model: Any) -> None:
    fitted = make_model()
    fitted.compile(keras.optimizers.SGD(0.0), sampler="greedy")
    single = alone(model, first(5))
    options = {"batch_size": 2, "verbose": 0, "shuffle": False}
    history = fitted.fit(first(5), validation_split=0.4, validation_batch_size=4, **options)
    np.testing.assert_allclose(history.history["val_loss"], [np.mean(single[3:])], rtol=1e-4)
    np.testing.assert_allclose(history.history["loss"], [per_token(model, single[:3])], 1e-4)


def test_weights_of_conversations(model: Any) -> None:
    single, weights = np.array(alone(model, first(5))), np.array([1.0, 0, 2, 0.5, 3], "float32")
    options = {"batch_size": 2, "verbose": 0}
    loss, _ = model.evaluate(first(5), sample_weight=weights, **options)
    np.testing.assert_allclose(loss, np.mean(single * weights), rtol=1e-4)
    fitted = make_model()
    fitted.compile(keras.optimizers.SGD(0.0), sampler="greedy")
    history = fitted.fit(
        first(4),
        sample_weight=weights[:4].tolist(),
        validation_data=(first(5), None, weights),
        shuffle=False,
        **options,
    )
    np.testing.assert_allclose(
        history.history["loss"], [per_token(model, single[:4], weights)], 1e-4
    )
    np.testing.assert_allclose(history.history["val_loss"], [loss], rtol=1e-4)


@pytest.mark.once
def test_weights_follow_the_order_and_the_split() -> None:
    data = Weighted(to_records(first(5)), [1, 2, 3, 4, 5])
    rest, held = data.split(0.3)
    assert rest.weights.tolist() == [1, 2, 3] and held.weights.tolist() == [4, 5]
    assert [r.messages[0]["content"] for r in held.records] == TALKS["prompts"][3:]
    assert data.split(None) == (data, None) and data.split(0.0) == (data, None)
    preprocessor = make_model().preprocessor
    shuffled = ConversationDataset(
        data.records, preprocessor, 2, seed=4, record_weights=data.weights, workers=0
    )
    plain = ConversationDataset(data.records, preprocessor, 2, seed=4, workers=0)
    shares = [(shuffled[i][2], plain[i][2].max(axis=1, keepdims=True)) for i in range(3)]
    got = np.concatenate([(weight / np.maximum(own, 1)).max(axis=1) for weight, own in shares])
    np.testing.assert_allclose(sorted(got[:5]), [1, 2, 3, 4, 5], rtol=1e-6)
    assert got[5] == 0 and not np.allclose(got[:5], [1, 2, 3, 4, 5])
    batches = measuring_dataset(data, preprocessor, 2)
    means = [batches[i][2].mean(axis=1).tolist() for i in range(3)]
    assert means == [pytest.approx(each) for each in ([5], [1, 2], [3, 4])]


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"validation_split": 1.5}, r"validation_split must be .* got 1\.5 for 5"),
        ({"validation_split": 0.99}, "leave a conversation on either side, got 0.99"),
        ({"validation_split": -0.5}, "validation_split must be"),
        ({"validation_split": "half"}, "got 'half'"),
        ({"sample_weight": np.ones(4)}, r"must be 5 finite .* got an array of shape \(4,\)"),
        ({"sample_weight": np.ones((5, 1))}, r"shape \(5, 1\)"),
        ({"sample_weight": [1, 1, np.nan, 1, 1]}, "got nan at 2"),
        ({"sample_weight": [1, 1, 1, -1, 1]}, r"got -1\.0 at 3"),
        ({"sample_weight": "heavy"}, "got 'heavy'"),
        ({"class_weight": {0: 1.0}}, "class_weight does not go with conversations"),
        ({"y": np.ones(5)}, "not into y"),
    ],
)
def test_arguments_that_do_not_go_with_conversations(
    model: Any, arguments: Any, match: str
) -> None:
    with pytest.raises(PromptError, match=match):
        model.fit(first(5), verbose=0, **arguments)
