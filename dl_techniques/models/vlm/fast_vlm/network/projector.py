"""From the encoder's features to rows as wide as the decoder's words.

Reference: LLaVA 1.5's `mlp2x_gelu` projector, https://arxiv.org/abs/2310.03744
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques.errors import VariantError
from dl_techniques.layers.dense import feed_forward
from dl_techniques.layers.freezing import LayerOfParts
from dl_techniques.typing import Shape, Tensor

ENHANCER_DROPOUT = 0.1


@keras.saving.register_keras_serializable(package="dl_techniques")
class FeatureEnhancer(LayerOfParts):
    """A bottleneck beside the rows: `x + dropout(dense(gelu(dense(x))))`, D to D / 2 to D.

    Args:
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Example:
        >>> tuple(FeatureEnhancer()(np.ones((1, 4, 8), "float32")).shape)
        (1, 4, 8)
    """

    def build(self, input_shape: Shape) -> None:
        """Creates the weights of both dense layers."""
        width, policy = int(input_shape[-1] or 0), self.dtype_policy
        half = max(1, width // 2)
        self.narrow = keras.layers.Dense(half, dtype=policy, name="narrow")
        self.widen = keras.layers.Dense(width, dtype=policy, name="widen")
        self.dropout = keras.layers.Dropout(ENHANCER_DROPOUT, dtype=policy, name="dropout")
        self.narrow.build(input_shape)
        self.widen.build((*input_shape[:-1], half))
        self.built = True

    def call(self, rows: Tensor, training: bool | None = None) -> Tensor:
        """float[..., D] -> float[..., D]."""
        return rows + self.dropout(feed_forward(self.narrow, self.widen, rows), training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The same."""
        return input_shape


@keras.saving.register_keras_serializable(package="dl_techniques")
class Projector(LayerOfParts):
    """Two dense layers with an exact GELU between them: float[..., C] -> float[..., D].

    Args:
        output_dim: Width of the decoder, D.
        hidden_dim: Width between the two layers. Defaults to `output_dim`.
        pool: Rows and columns of a grid that a square feature map is averaged to before it is
            projected, whatever its size (adaptive average pooling); None for the map as it is.
        enhance: Whether a `FeatureEnhancer` follows.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Raises:
        VariantError: a grid that is none.

    Example:
        >>> tuple(Projector(8, pool=(2, 3))(np.zeros((2, 16, 16), "float32")).shape)
        (2, 6, 8)
    """

    def __init__(
        self,
        output_dim: int,
        hidden_dim: int | None = None,
        pool: Sequence[int] | None = None,
        enhance: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.output_dim = int(output_dim)
        self.hidden_dim = int(hidden_dim or output_dim)
        self.pool = None if pool is None else _grid(pool)
        self.dense_1 = keras.layers.Dense(self.hidden_dim, dtype=self.dtype_policy, name="dense_1")
        self.dense_2 = keras.layers.Dense(self.output_dim, dtype=self.dtype_policy, name="dense_2")
        self.enhancer = (
            FeatureEnhancer(dtype=self.dtype_policy, name="enhancer") if enhance else None
        )

    def build(self, input_shape: Shape) -> None:
        """Creates the weights of all dense layers."""
        self.dense_1.build(input_shape)
        self.dense_2.build((*input_shape[:-1], self.hidden_dim))
        if self.enhancer is not None:
            self.enhancer.build((*input_shape[:-1], self.output_dim))
        self.built = True

    def call(self, features: Tensor, training: bool | None = None) -> Tensor:
        """float[..., P, C] -> float[..., P, D], or a row for each cell of the grid."""
        if self.pool is not None:
            features = pooled(features, self.pool)
        rows = feed_forward(self.dense_1, self.dense_2, features)
        return rows if self.enhancer is None else self.enhancer(rows, training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Rows change where they are pooled, and the last axis."""
        rows = input_shape[1:-1] if self.pool is None else (math.prod(self.pool),)
        return (input_shape[0], *rows, self.output_dim)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {
            **super().get_config(),
            "output_dim": self.output_dim,
            "hidden_dim": self.hidden_dim,
            "pool": None if self.pool is None else list(self.pool),
            "enhance": self.enhancer is not None,
        }


def pooled(rows: Tensor, grid: tuple[int, int]) -> Tensor:
    """Averages a square map to a grid, as adaptive average pooling does.

    Two matrix products with fixed matrices: every runtime has them.

    Args:
        rows: float[M, h * h, C], row by row.
        grid: rows and columns of the result, p and q.

    Returns:
        float[M, p * q, C].

    Raises:
        VariantError: the map is no square, or its size is open.

    Example:
        >>> float(pooled(np.arange(4.0).reshape(1, 4, 1), (1, 1))[0, 0, 0])
        1.5
    """
    number, channels = rows.shape[1], rows.shape[2]
    side = math.isqrt(number or 0)
    if side * side != number or not number:
        raise VariantError(
            f"pool={grid} takes a square feature map of fixed size, got {number} rows; give the "
            "encoder square pictures of one size"
        )
    down = ops.convert_to_tensor(averages(side, grid[0]), dtype=rows.dtype)
    along = ops.convert_to_tensor(averages(side, grid[1]), dtype=rows.dtype)
    high = ops.matmul(down, ops.reshape(rows, (-1, side, side * channels)))
    wide = ops.matmul(along, ops.reshape(high, (-1, side, channels)))
    return ops.reshape(wide, (-1, grid[0] * grid[1], channels))


def averages(size: int, cells: int) -> np.ndarray:
    """float32[cells, size]: which of `size` places each cell is the mean of.

    Cell i reaches from `floor(i * size / cells)` to `ceil((i + 1) * size / cells)`.

    Example:
        >>> averages(3, 2).tolist()
        [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    """
    matrix = np.zeros((cells, size), "float32")
    for i in range(cells):
        start, end = i * size // cells, -(-(i + 1) * size // cells)
        matrix[i, start:end] = 1.0 / (end - start)
    return matrix


def _grid(pool: Sequence[int]) -> tuple[int, int]:
    numbers = list(pool) if isinstance(pool, Sequence) and not isinstance(pool, str) else []
    if len(numbers) != 2 or not all(type(n) is int and n > 0 for n in numbers):
        raise VariantError(f"pool must be two whole numbers above 0, (rows, columns), got {pool!r}")
    return numbers[0], numbers[1]
