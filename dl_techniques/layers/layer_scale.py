"""Per-channel learnable scale of a residual branch, and stochastic depth."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="dl_techniques")
class LayerScale(keras.layers.Layer):
    """Multiplies channel c by `gamma[c]`: float[..., C] -> float[..., C].

    Args:
        initial_value: float. Start value of all gammas. Defaults to 1e-5.
        **kwargs: name, dtype.

    Example:
        >>> import numpy as np
        >>> float(LayerScale(0.5)(np.ones((1, 2), "float32"))[0, 0])
        0.5

    Reference: Touvron et al., "Going deeper with Image Transformers", arXiv:2103.17239, eq. 5.
    """

    def __init__(self, initial_value: float = 1e-5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial_value = initial_value

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates `gamma`, float[C]."""
        self.gamma = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_value),
            name="gamma",
        )

    def call(self, inputs: Any) -> Any:
        """Scales the last axis."""
        return inputs * self.gamma

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "initial_value": self.initial_value}


@keras.saving.register_keras_serializable(package="dl_techniques")
class StochasticDepth(keras.layers.Layer):
    """Drops a residual branch for whole samples while training: float[B, ...] -> same.

    A kept sample is divided by `1 - rate`, so that the expectation is unchanged.

    Args:
        rate: float in [0, 1). Probability that a sample's branch is dropped. Defaults to 0.
        seed: int or None.
        **kwargs: name, dtype.

    Raises:
        ValueError: the rate is outside [0, 1).

    Example:
        >>> import numpy as np
        >>> StochasticDepth(0.5)(np.ones((2, 3)), training=False).shape[1]
        3

    Reference: Huang et al., "Deep Networks with Stochastic Depth", arXiv:1603.09382, eq. 5.
    """

    def __init__(self, rate: float = 0.0, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be in [0, 1), got {rate}")
        self.rate, self.seed = rate, seed
        if rate > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True  # no shape matters; `quantize` refuses what is not built

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        """Identity at inference."""
        if not training or self.rate == 0:
            return inputs
        shape = (ops.shape(inputs)[0], *([1] * (len(inputs.shape) - 1)))
        draw = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        kept = ops.cast(draw >= self.rate, inputs.dtype)
        return inputs * kept / (1.0 - self.rate)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
