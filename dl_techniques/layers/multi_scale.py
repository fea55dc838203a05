"""Finer feature maps beside the last one, on its grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from dl_techniques.typing import Shape


@keras.saving.register_keras_serializable(package="dl_techniques")
class MultiScaleFeatures(keras.layers.Layer):
    """Joins maps of halving sizes on the grid of the last: nothing is averaged away.

    Every finer map is laid out cell by cell (space to depth): a place of the last map gets, beside
    its own channels, those of the 2 x 2, 4 x 4, ... places of the finer maps that it covers. What
    a place of a map of odd size covers beyond its edge is 0. There are no weights.

    Inputs: a list of float[B, ceil(H / s), ceil(W / s), C_s], finest first, s = ..., 4, 2, 1 times
    the last one's stride. Output: float[B, h, w, C_1 + 4 * C_2 + 16 * C_4 + ...], on the last one's
    grid, the coarsest map's channels first.

    Args:
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Raises:
        ValueError: sizes that do not halve.

    Example:
        >>> import numpy as np
        >>> fine, coarse = np.arange(4.0).reshape(1, 2, 2, 1), np.full((1, 1, 1, 1), 9.0)
        >>> keras.ops.convert_to_numpy(MultiScaleFeatures()([fine, coarse]))[0, 0, 0].tolist()
        [9.0, 0.0, 1.0, 2.0, 3.0]

    Reference: Vasu et al., "FastVLM", arXiv:2412.13303, "multi-scale features"; there finer maps
    are pooled or convolved to the last one's grid.
    """

    def build(self, input_shape: Sequence[Shape]) -> None:
        """Checks the sizes; there are no weights."""
        self.compute_output_shape(input_shape)
        self.built = True

    def call(self, maps: Sequence[Any]) -> Any:
        """Joins them."""
        coarse, parts = maps[-1], [maps[-1]]
        for power, fine in enumerate(reversed(maps[:-1]), start=1):
            parts += _cells(fine, 2**power, ops.shape(coarse)[1:3])
        return ops.concatenate(parts, axis=-1)

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> Shape:
        """The last map's grid, all channels."""
        *finer, coarse = input_shape
        channels = coarse[-1] or 0
        for power, shape in enumerate(reversed(finer), start=1):
            for side, cells in zip(shape[1:3], coarse[1:3], strict=True):
                if side is not None and cells is not None and -(-side // 2**power) != cells:
                    raise ValueError(
                        f"maps of {[tuple(s[1:3]) for s in input_shape]} places: each must have "
                        "half as many along a side, rounded up, as the one before; finest first"
                    )
            channels += 4**power * (shape[-1] or 0)
        return (*coarse[:-1], channels)


def _cells(fine: Any, factor: int, grid: Sequence[Any]) -> list[Any]:
    """The places of each cell, row by row: `factor ** 2` maps of the grid's size."""
    missing = [
        factor - 1 if side is None else -side % factor for side in (fine.shape[1], fine.shape[2])
    ]
    if any(missing):
        fine = ops.pad(fine, [(0, 0), (0, missing[0]), (0, missing[1]), (0, 0)])
    height, width = (side * factor for side in grid)
    return [fine[:, y:height:factor, x:width:factor] for y in range(factor) for x in range(factor)]
