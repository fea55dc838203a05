"""Name tags: probabilities of names, whether any is known, and the rows that say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import special

from dl_techniques.layers.name_tags import NUMBERS, NameTags, Tags
from tests.helpers import numbers, random_array, randomize, rebuilt

NAMES = ("cat", "dog", "sofa", "tree", "sun")
CLASSES = (1, 1, 2, 4, 0, 1)
CALIBRATION = {
    "trained": 1.3,
    "trained_classes": 0.4,
    "classes": 0.9,
    "offset": -0.7,
    "floor": 0.01,
    "known_bias": 0.2,
    "known_best": 0.6,
    "known_spread": -0.3,
}


def tags(**options: Any) -> NameTags:
    """Five names of six classes, two with scores of their own."""
    layer = NameTags(
        NAMES, CLASSES, 2, ("photograph", "person"), 6, 2, calibration=CALIBRATION, **options
    )
    layer.build((None, 3, 3, 8))
    randomize(layer)
    layer.embeddings.assign(random_array(len(NAMES), 12, seed=3))
    return layer


def test_probabilities_are_what_the_docstring_says() -> None:
    layer, features = tags(), random_array(4, 3, 3, 8)
    pooled = features.astype("float64").mean((1, 2))

    def dense(part: Any) -> np.ndarray:
        return np.asarray(pooled @ numbers(part.kernel) + numbers(part.bias))

    shares = np.zeros((4, len(NAMES)))
    for place, share in zip(CLASSES, special.softmax(dense(layer.classes), axis=1).T, strict=True):
        shares[:, place] += share
    told = np.log(shares + CALIBRATION["floor"])
    logits = CALIBRATION["classes"] * told + CALIBRATION["offset"]
    logits[:, :2] = 1.3 * dense(layer.scores) + 0.4 * told[:, :2]
    known = special.expit(0.2 + 0.6 * logits.max(1) - 0.3 * special.logsumexp(logits, axis=1))
    found = layer.tags(features)
    np.testing.assert_allclose(numbers(found.names), special.softmax(logits, axis=1), atol=1e-5)
    np.testing.assert_allclose(numbers(found.known), known, atol=1e-5)
    np.testing.assert_allclose(
        numbers(found.facts), special.expit(dense(layer.fact_scores)), atol=1e-5
    )


def test_rows_tell_the_best_names_in_their_order() -> None:
    layer = tags()
    made_up = Tags(
        np.array([[0.1, 0.5, 0.05, 0.3, 0.05]], "float32"),
        np.array([0.8], "float32"),
        np.array([[0.9, 0.2]], "float32"),
    )
    rows = numbers(layer.rows(made_up))[0, 0]
    table = numbers(layer.embeddings).reshape(-1, 2, 6)
    assert rows.shape == (layer.num_rows, layer.width) == (7, 6 + NUMBERS + 3 + 2)
    np.testing.assert_allclose(rows[1:, :6], table[[1, 3, 0]].reshape(6, 6), atol=1e-6)
    np.testing.assert_allclose(rows[1:, 6], [0.4, 0.4, 0.24, 0.24, 0.08, 0.08], atol=1e-6)
    # steps at .02, .4 and .7: at a threshold one half
    np.testing.assert_allclose(rows[1, 8:11], [1, 0.5, 0], atol=1e-6)
    rank_and_place = rows[1:, 6 + NUMBERS :]
    expected = [[*np.eye(3)[rank], *np.eye(2)[place]] for rank in range(3) for place in range(2)]
    np.testing.assert_array_equal(rank_and_place, expected)
    assert not rows[0, :6].any()
    np.testing.assert_allclose(rows[0, 6:9], [0.8, 0.9, 0.2], atol=1e-6)
    np.testing.assert_allclose(rows[0, 9:12], [1, 1, 0], atol=1e-6)  # each above one half or not


def test_it_is_saved() -> None:
    layer, features = tags(num_best=2), random_array(2, 3, 3, 8)
    expected = numbers(layer(features))
    assert expected.shape == (2, 1, 5, 6 + NUMBERS + 4)
    np.testing.assert_array_equal(numbers(rebuilt(layer, (None, 3, 3, 8))(features)), expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_trained": 9}, "expected 1 to 5"),
        ({"class_names": (0, 7)}, "places among the 5 names"),
        ({"facts": ("a", "b", "c", "d")}, "at most 3"),
        ({"calibration": {"temperature": 1.0}}, "temperature"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], said: str) -> None:
    given = {"names": NAMES, "class_names": CLASSES, "num_trained": 2, "facts": ("person",)}
    with pytest.raises(ValueError, match=said):
        NameTags(**{**given, "embedding_dim": 4, **options})
