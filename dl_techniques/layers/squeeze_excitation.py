"""Squeeze-and-excitation: channels weighted by what the whole map shows."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from dl_techniques.layers.freezing import LayerOfParts


def reduced_width(channels: int, ratio: float, divisor: int = 1) -> int:
    """Width of the bottleneck: `channels * ratio`, rounded to a multiple of `divisor`."""
    width = int(channels * ratio + divisor / 2) // divisor * divisor
    return max(divisor, width)


@keras.saving.register_keras_serializable(package="dl_techniques")
class SqueezeExcitation(LayerOfParts):
    """Mean over the map, two dense layers (ReLU, sigmoid), product: float[B, H, W, C] -> same.

    Args:
        ratio: float. Bottleneck width over channels. Defaults to 1/16.
        divisor: int. The width is rounded to a multiple of it. Defaults to 1.
        **kwargs: name, dtype.

    Example:
        >>> import numpy as np
        >>> tuple(SqueezeExcitation(0.25)(np.ones((1, 4, 4, 8), "float32")).shape[1:])
        (4, 4, 8)

    Reference: Hu et al., "Squeeze-and-Excitation Networks", arXiv:1709.01507, section 3.
    """

    def __init__(self, ratio: float = 1 / 16, divisor: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ratio, self.divisor = ratio, divisor

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates `reduce` and `expand`, dense layers with bias."""
        channels = int(input_shape[-1] or 0)
        width = reduced_width(channels, self.ratio, self.divisor)
        self.reduce = keras.layers.Dense(
            width, activation="relu", name="reduce", dtype=self.dtype_policy
        )
        self.expand = keras.layers.Dense(
            channels, activation="sigmoid", name="expand", dtype=self.dtype_policy
        )
        self.reduce.build((input_shape[0], channels))
        self.expand.build((input_shape[0], width))

    def call(self, inputs: Any) -> Any:
        """Weights each channel by a number in (0, 1)."""
        weights = self.expand(self.reduce(ops.mean(inputs, axis=(1, 2))))
        return inputs * ops.expand_dims(ops.expand_dims(weights, 1), 1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "ratio": self.ratio, "divisor": self.divisor}
