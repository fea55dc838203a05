"""Fewer tokens out of many: the ones that stand out are kept, the others are merged into them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from dl_techniques.layers.freezing import LayerOfParts
from dl_techniques.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="dl_techniques")
class TokenSelector(LayerOfParts):
    """Keeps k of N tokens: float[B, N, D] -> float[B, k, D], in their old order.

    1. A token is the more important the less it resembles the mean of all: one minus the cosine.
       What most of a picture shows alike (the background) comes last.
    2. The k most important stay. Of equal ones the first stay.
    3. Every other token goes to the kept token that it resembles most, and the kept one becomes
       the mean of itself (weight 1) and what came to it (weight: the cosine, at least 0).

    With N <= k the tokens pass unchanged, bit for bit. Tokens at the end that tell something else
    than places of a picture (`num_last` of them, such as name tags) pass in any case.

    Args:
        num_tokens: int or None. How many to keep, k, those at the end included; None for all.
        trained: Whether a dense layer of one output scores the tokens as well. The score is added
            to the importance, and its exponential to the weight in the means, which is what
            trains it. It begins at zero, where the layer does what the untrained one does.
        num_last: int. Tokens at the end that always stay, and to which nothing is merged.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Raises:
        ValueError: k is less than 1, or leaves nothing beside the last tokens.

    Example:
        >>> import numpy as np
        >>> x = np.array([[[1, 0], [0.9, 0], [0, 2], [0.8, 0]]], "float32")
        >>> keras.ops.convert_to_numpy(TokenSelector(2)(x)).round(2).tolist()
        [[[0.8999999761581421, 0.0], [0.0, 2.0]]]

    Reference: the merging follows ToMe (Bolya et al., arXiv:2210.09461) and the choice of tokens
    by importance, the rest merged by similarity, LLaVA-PruMerge (Shang et al., arXiv:2403.15388),
    which takes the importance from a class token that FastViTHD does not have.
    """

    def __init__(
        self,
        num_tokens: int | None,
        trained: bool = False,
        num_last: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_tokens is not None and num_tokens < 1 + num_last:
            raise ValueError(
                f"num_tokens={num_tokens} must be at least {1 + num_last}, or None for all"
            )
        self.num_tokens, self.num_last = num_tokens, num_last
        self.trained = trained
        if trained:
            self.score = keras.layers.Dense(
                1, kernel_initializer="zeros", dtype=self.dtype_policy, name="score"
            )

    def build(self, input_shape: Shape) -> None:
        """Creates the score's weights, where there is one."""
        if self.trained:
            self.score.build(input_shape)
        self.built = True

    def call(self, tokens: Tensor) -> Tensor:
        """float[B, N, D] -> float[B, min(k, N), D]."""
        number = tokens.shape[1]
        if self.num_tokens is None or (number is not None and number <= self.num_tokens):
            return tokens
        if self.num_last:
            chosen = self._chosen(tokens[:, : -self.num_last], self.num_tokens - self.num_last)
            return ops.concatenate([chosen, tokens[:, -self.num_last :]], axis=1)
        return self._chosen(tokens, self.num_tokens)

    def _chosen(self, tokens: Tensor, number: int) -> Tensor:
        """float[B, N, D] -> float[B, number, D]."""
        units = _unit_length(tokens)
        importance = self._importance(units)
        score = None
        if self.trained:
            score = ops.cast(self.score(tokens)[..., 0], "float32")
            importance = importance + score
        kept = _most(importance, number)
        weights = _shares(units, kept)
        if score is not None:
            weights = weights * ops.exp(score)[:, :, None]
        return _weighted_means(tokens, weights)

    def _importance(self, units: Tensor) -> Tensor:
        """float32[B, N, D] of length 1 -> float32[B, N]: one minus the cosine to the mean."""
        mean = _unit_length(ops.mean(units, axis=1, keepdims=True))
        return 1 - ops.sum(units * mean, axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, N, D) -> (B, min(k, N), D)."""
        counts = [n for n in (input_shape[1], self.num_tokens) if n is not None]
        return (input_shape[0], min(counts, default=None), input_shape[2])

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        own = {"num_tokens": self.num_tokens, "trained": self.trained, "num_last": self.num_last}
        return {**super().get_config(), **own}


def _unit_length(x: Tensor) -> Tensor:
    """Vectors of length 1 in float32; zeros stay zeros."""
    x = ops.cast(x, "float32")
    return x * ops.rsqrt(ops.maximum(ops.sum(x * x, axis=-1, keepdims=True), 1e-12))


def _most(importance: Tensor, number: int) -> Tensor:
    """float[B, N] -> int32[B, k]: places of the largest, in rising order."""
    order = ops.argsort(-importance, axis=1)[:, :number]
    return ops.sort(ops.cast(order, "int32"), axis=1)


def _shares(units: Tensor, kept: Tensor) -> Tensor:
    """How much of every token goes to every kept one: float32[B, N, D], int[B, k] -> [B, N, k].

    A kept token goes to itself with weight 1; another to its nearest with their cosine.
    """
    places = ops.arange(ops.shape(units)[1], dtype="int32")
    own = ops.equal(places[None, :, None], kept[:, None, :])
    cosines = ops.matmul(
        units, ops.transpose(ops.take_along_axis(units, kept[:, :, None], axis=1), (0, 2, 1))
    )
    # Not argmax: Keras' own on TensorFlow needs an operator that LiteRT does not have.
    best = ops.top_k(cosines, 1)[1][..., 0]
    nearest = ops.one_hot(best, kept.shape[1], dtype="float32")
    others = nearest * ops.maximum(cosines, 0.0)
    is_kept = ops.any(own, axis=-1, keepdims=True)
    return ops.where(is_kept, ops.cast(own, "float32"), others)


def _weighted_means(tokens: Tensor, weights: Tensor) -> Tensor:
    """float[B, N, D], float32[B, N, k] -> float[B, k, D] in the type of the tokens."""
    total = ops.sum(weights, axis=1)[:, :, None]
    sums = ops.matmul(ops.transpose(weights, (0, 2, 1)), ops.cast(tokens, "float32"))
    return ops.cast(sums / total, tokens.dtype)
