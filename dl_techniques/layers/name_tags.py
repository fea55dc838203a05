"""What a classifier knows, told to a decoder: the likeliest names with their probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from dl_techniques.layers.freezing import LayerOfParts
from dl_techniques.typing import Shape, Tensor

THRESHOLDS = (0.02, 0.4, 0.7)
"""Probabilities that an answer changes at: not worth a word, worth a guess, said plainly."""
STEEPNESS = 60.0
NUMBERS = 8
"""Channels that tell probabilities."""
CALIBRATION = {
    "trained": 1.0,
    "trained_classes": 0.0,
    "classes": 1.0,
    "offset": 0.0,
    "floor": 1e-6,
    "known_bias": 0.0,
    "known_best": 1.0,
    "known_spread": 0.0,
}


class Tags(NamedTuple):
    """What `NameTags` knows of pictures.

    Attributes:
        names: float32[B, N], the probability of every name, given that it is one of them.
        known: float32[B], the probability that it is one of them.
        facts: float32[B, F], the probability of every fact.
    """

    names: Any
    known: Any
    facts: Any


@keras.saving.register_keras_serializable(package="dl_techniques")
class NameTags(LayerOfParts):
    """Rows that say what is in a picture: float[B, h, w, C] -> float[B, 1, 1 + K * L, W].

    1. The map is averaged. A published classifier gives the probabilities of its classes, which
       are summed into names ("dog" has 118 of ImageNet's).
    2. The first M names have a score of their own, a dense layer that was fitted to photographs.
       With `calibration`, fitted on photographs held back, its logit is `trained * score +
       trained_classes * log(probability + floor)`; that of a name without a score is
       `classes * log(probability + floor) + offset`. A softmax gives the probabilities.
    3. Whether it is any of the names is a sigmoid of the largest and the log-sum-exp of the logits.
    4. Facts are sigmoids of a dense layer.

    The first row tells the facts and whether the picture is known. Then come the K likeliest names,
    L rows each: the decoder's own embeddings of its words, one a row, and beside each the name's
    probability, also as a logarithm and as steps at `THRESHOLDS`, its rank and the word's place.
    So a name is text that a decoder only has to copy, whatever name it is, and what to say of it
    can be learnt from rows alone, without a picture: `rows` takes probabilities that were made up.

    Args:
        names: every name.
        class_names: for each class of the classifier the place of its name among `names`.
        num_trained: names with a score of their own, M, the first ones.
        facts: their names, e.g. ("photograph", "person").
        embedding_dim: channels of a word, E: those of the decoder's embeddings.
        num_words: of a name at most, L; what a shorter one lacks is zeros.
        num_best: names that are told, K. Defaults to 3.
        calibration: numbers by name, as in `CALIBRATION`.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Example:
        >>> import numpy as np
        >>> tags = NameTags(["cat", "dog"], [0, 1, 1], 1, ["photograph"], 4, num_words=2)
        >>> tuple(tags(np.zeros((2, 7, 7, 16), "float32")).shape)
        (2, 1, 7, 17)

    Reference: tags as a decoder's input, Tag2Text (arXiv:2303.05657); whether a picture is known
    from the logits' log-sum-exp, Liu et al., "Energy-based out-of-distribution detection"
    (arXiv:2010.03759), equation 6.
    """

    def __init__(
        self,
        names: Sequence[str],
        class_names: Sequence[int],
        num_trained: int,
        facts: Sequence[str],
        embedding_dim: int,
        num_words: int = 6,
        num_best: int = 3,
        calibration: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.names, self.facts = tuple(names), tuple(facts)
        self.class_names = tuple(int(place) for place in class_names)
        self.num_trained, self.embedding_dim = int(num_trained), int(embedding_dim)
        self.num_words, self.num_best = int(num_words), int(num_best)
        self.calibration = {**CALIBRATION, **(calibration or {})}
        self._check()
        # Probabilities want more digits than half a float has.
        self.classes = keras.layers.Dense(len(class_names), dtype="float32", name="classes")
        self.scores = keras.layers.Dense(self.num_trained, dtype="float32", name="scores")
        self.fact_scores = keras.layers.Dense(len(facts), dtype="float32", name="fact_scores")

    def _check(self) -> None:
        unknown = set(self.calibration) - set(CALIBRATION)
        if unknown:
            raise ValueError(f"calibration {sorted(unknown)}: expected some of {[*CALIBRATION]}")
        if 2 + 2 * len(self.facts) > NUMBERS:
            raise ValueError(f"{len(self.facts)} facts: at most {NUMBERS // 2 - 1} fit in a row")
        if not 0 < self.num_trained <= len(self.names):
            raise ValueError(f"num_trained={self.num_trained}: expected 1 to {len(self.names)}")
        if not all(0 <= place < len(self.names) for place in self.class_names):
            raise ValueError(f"class_names must be places among the {len(self.names)} names")

    @property
    def width(self) -> int:
        """Channels of a row, W = E + `NUMBERS` + K + L."""
        return self.embedding_dim + NUMBERS + self.num_best + self.num_words

    @property
    def num_rows(self) -> int:
        """Rows of a picture, 1 + K * L."""
        return 1 + self.num_best * self.num_words

    def build(self, input_shape: Shape) -> None:
        """Creates the three dense layers and the table of names, float[N, L * E], all zeros."""
        pooled = (None, input_shape[-1])
        for layer in (self.classes, self.scores, self.fact_scores):
            layer.build(pooled)
        self.embeddings = self.add_weight(
            shape=(len(self.names), self.num_words * self.embedding_dim),
            initializer="zeros",
            trainable=False,
            dtype="float32",
            name="embeddings",
        )
        membership = np.eye(len(self.names), dtype="float32")[list(self.class_names)]
        object.__setattr__(self, "_membership", membership)
        self.built = True

    def tags(self, features: Tensor) -> Tags:
        """Probabilities: float[B, h, w, C] -> `Tags`."""
        pooled = ops.mean(ops.cast(features, "float32"), axis=(1, 2))
        numbers = self.calibration
        classes = ops.softmax(self.classes(pooled))
        told = ops.matmul(classes, ops.convert_to_tensor(self._membership))
        heard = ops.log(told + numbers["floor"])
        count = self.num_trained
        own = numbers["trained"] * self.scores(pooled)
        own = own + numbers["trained_classes"] * heard[:, :count]
        others = numbers["classes"] * heard[:, count:] + numbers["offset"]
        logits = ops.concatenate([own, others], axis=-1)
        best, spread = ops.max(logits, axis=-1), ops.logsumexp(logits, axis=-1)
        known = ops.sigmoid(
            numbers["known_bias"] + numbers["known_best"] * best + numbers["known_spread"] * spread
        )
        return Tags(ops.softmax(logits), known, ops.sigmoid(self.fact_scores(pooled)))

    def rows(self, tags: Tags) -> Tensor:
        """What a decoder reads of probabilities: `Tags` -> float32[B, 1, 1 + K * L, W]."""
        told = [self._fact_row(tags)]
        left = ops.convert_to_tensor(tags.names, "float32")
        table = ops.convert_to_tensor(self.embeddings, "float32")
        for rank in range(self.num_best):
            # No argmax: TensorFlow's way to it from Keras has no form in LiteRT.
            share = ops.max(left, axis=-1, keepdims=True)
            best = ops.cast(left >= share, "float32")
            alike = best / ops.sum(best, axis=-1, keepdims=True)
            chance = ops.relu(share[:, 0]) * tags.known
            told.append(self._name_rows(ops.matmul(alike, table), chance, rank))
            left = left * (1.0 - best) - best
        return ops.concatenate(told, axis=1)[:, None]

    def _fact_row(self, tags: Tags) -> Tensor:
        chances = ops.concatenate([tags.known[:, None], tags.facts], axis=-1)
        numbers = ops.concatenate([chances, _step(chances, 0.5)], axis=-1)
        behind = self.width - self.embedding_dim - 2 - 2 * len(self.facts)
        return ops.pad(numbers, [(0, 0), (self.embedding_dim, behind)])[:, None]

    def _name_rows(self, words: Tensor, chance: Tensor, rank: int) -> Tensor:
        """float32[B, L * E] and float32[B] -> float32[B, L, W]."""
        steps = [_step(chance, threshold) for threshold in THRESHOLDS]
        numbers = ops.stack([chance, 1.0 + ops.log(chance + 1e-3) / 7.0, *steps], axis=-1)
        numbers = ops.pad(numbers, [(0, 0), (0, NUMBERS - len(steps) - 2)])
        numbers = ops.repeat(numbers[:, None], self.num_words, axis=1)
        place = np.zeros((1, self.num_words, self.num_best + self.num_words), "float32")
        place[0, :, rank] = 1.0
        place[0, :, self.num_best :] = np.eye(self.num_words)
        place = ops.zeros_like(numbers[:, :, :1]) + place
        words = ops.reshape(words, (-1, self.num_words, self.embedding_dim))
        return ops.concatenate([words, numbers, place], axis=-1)

    def call(self, features: Tensor) -> Tensor:
        """float[B, h, w, C] -> float[B, 1, 1 + K * L, W]."""
        return ops.cast(self.rows(self.tags(features)), self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, 1, 1 + K * L, W)."""
        return (input_shape[0], 1, self.num_rows, self.width)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {
            **super().get_config(),
            "names": list(self.names),
            "class_names": list(self.class_names),
            "num_trained": self.num_trained,
            "facts": list(self.facts),
            "embedding_dim": self.embedding_dim,
            "num_words": self.num_words,
            "num_best": self.num_best,
            "calibration": dict(self.calibration),
        }


def _step(chance: Tensor, threshold: float) -> Tensor:
    """About 0 below a threshold, about 1 above, in float32 on every backend."""
    return ops.sigmoid(STEEPNESS * (chance - threshold))
