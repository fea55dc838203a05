"""Calibration: a model is shown pictures, and the extremes of its activations become ranges.

Whoever calibrates says where to look: at the quantizers of a network that learns to round
(`quantization_aware`), or at what enters the layers of a float one (`static_int8`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from dl_techniques.layers.quantized.fake_quant import ActivationQuantizer
from dl_techniques.runtime.compile import no_gradients
from dl_techniques.typing import Tensor

if TYPE_CHECKING:
    import keras


class Range:
    """The extremes of what was seen, zero always included."""

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self.any = False

    def widen(self, inputs: Tensor) -> None:
        """Takes some activations in."""
        values = ops.convert_to_numpy(ops.cast(inputs, "float32"))
        # Unlike Python's, these let a value that is no number through.
        self.low = float(np.minimum(self.low, values.min()))
        self.high = float(np.maximum(self.high, values.max()))
        self.any = True

    @property
    def finite(self) -> bool:
        """Whether both ends are numbers."""
        return bool(np.isfinite([self.low, self.high]).all())

    def assign_to(self, quantizer: ActivationQuantizer) -> None:
        """Sets a quantizer's range."""
        quantizer.low.assign(self.low)
        # Zero everywhere: every range holds it, this one leaves room.
        quantizer.high.assign(self.high if self.high > self.low else 1.0)


def show(model: keras.Model, pictures: Any, batch_size: int) -> None:
    """Calls a model on all pictures, eagerly, without keeping what a gradient would need.

    Args:
        model: takes float[B, H, W, 3].
        pictures: float[N, H, W, 3], or an iterable of such batches (of a pair the first counts).
        batch_size: int. Pictures at once, where an array is given.
    """
    with no_gradients():
        for batch in _batches(pictures, batch_size):
            model(batch, training=False)


def _batches(pictures: Any, batch_size: int) -> Iterable[Any]:
    if isinstance(pictures, np.ndarray) or keras.ops.is_tensor(pictures):
        for start in range(0, len(pictures), batch_size):
            yield pictures[start : start + batch_size]
        return
    for batch in pictures:
        yield batch[0] if isinstance(batch, tuple | list) else batch
