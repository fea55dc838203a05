"""Initial weights drawn on the host: quick on every backend, and the same on all of them."""

from __future__ import annotations

import random
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques.compat.keras_layers import in_stateless_scope


@keras.saving.register_keras_serializable(package="dl_techniques")
class HostTruncatedNormal(keras.initializers.Initializer):
    """Normal numbers cut off at two standard deviations, drawn by NumPy.

    Keras' own draws on the device: JAX compiles a program for each shape, tens of seconds for a
    small network, and the three backends start from different weights. This one takes
    milliseconds, and `keras.utils.set_random_seed` gives the same weights on all three.

    Args:
        stddev: float. Standard deviation before the cut. Defaults to 0.02.
        seed: int or None. `None` draws one from Python's generator, which
            `keras.utils.set_random_seed` seeds. Defaults to `None`.

    Example:
        >>> float(keras.ops.max(keras.ops.abs(HostTruncatedNormal(0.5)((100,))))) <= 1.0
        True
    """

    def __init__(self, stddev: float = 0.02, seed: int | None = None) -> None:
        self.stddev, self.seed = stddev, seed

    def __call__(self, shape: tuple[int, ...], dtype: Any = None, **kwargs: Any) -> Any:
        """float[shape]; `kwargs` are what Keras passes to every initializer (layouts)."""
        if in_stateless_scope():  # a placeholder, of which Keras looks at shape and type alone
            return ops.zeros(shape, dtype=dtype or keras.config.floatx())
        seed = self.seed if self.seed is not None else random.randrange(2**31)
        generator = np.random.default_rng(seed)
        values = generator.standard_normal(shape)
        outside = np.abs(values) > 2.0
        while outside.any():
            values[outside] = generator.standard_normal(int(outside.sum()))
            outside = np.abs(values) > 2.0
        array = (values * self.stddev).astype("float32")
        return ops.convert_to_tensor(array, dtype=dtype or keras.config.floatx())

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {"stddev": self.stddev, "seed": self.seed}
