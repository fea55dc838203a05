"""Fake quantization: rounding to an integer grid that the gradient does not see.

| tensor | grid | scale | range |
|---|---|---|---|
| kernels | symmetric, -127..127 in 8 bits | one an output channel | largest absolute value |
| activations | asymmetric, 0..255 in 8 bits, zero exact | one a tensor | moving extremes |

The values are those of `tf.quantization.fake_quant_with_min_max_vars` and of its per-channel form
with `narrow_range=True`, and so those of LiteRT's integer kernels. Gradients are straight-through:
rounding counts as the identity; activations outside their range get no gradient.

`computed_by` lets an exporter, a calibration or a trace stand in for the arithmetic without the
layers knowing of it.

Reference: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", arXiv:1712.05877, sections 2 and 3; Bengio et al., "Estimating
or Propagating Gradients Through Stochastic Neurons", arXiv:1308.3432.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

from dl_techniques.typing import Tensor

Axes = tuple[int, ...]


def kernel_scale(kernel: Tensor, axes: Axes, bits: int = 8) -> Any:
    """Step of each channel's grid: the largest absolute value over `2 ** (bits - 1) - 1`.

    Args:
        kernel: float tensor.
        axes: the axes that share a scale: all but the output channels'.
        bits: int. Width of the integers.

    Returns:
        float32 like `kernel`, with ones at `axes`; 1 where a channel is all zeros.

    Example:
        >>> import numpy as np
        >>> float(kernel_scale(np.array([[1.27], [-0.5]], "float32"), (0,))[0, 0])
        0.009999999776482582
    """
    largest = ops.max(ops.abs(ops.cast(kernel, "float32")), axis=axes, keepdims=True)
    return ops.where(largest > 0, largest / (2 ** (bits - 1) - 1), ops.ones_like(largest))


def fake_quantize_kernel(kernel: Tensor, axes: Axes, bits: int = 8) -> Any:
    """A kernel rounded to its symmetric per-channel grid; its gradient is the identity's.

    Args:
        kernel: float tensor.
        axes: the axes that share a scale.
        bits: int. Defaults to 8.

    Example:
        >>> import numpy as np
        >>> float(fake_quantize_kernel(np.array([[1.27], [0.124]], "float32"), (0,))[1, 0])
        0.11999999731779099
    """
    exact = ops.cast(kernel, "float32")
    scale = kernel_scale(ops.stop_gradient(exact), axes, bits)
    rounded = ops.floor(exact / scale + 0.5) * scale
    return ops.cast(exact + ops.stop_gradient(rounded - exact), kernel.dtype)


def nudged_grid(low: Any, high: Any, bits: int = 8) -> tuple[Any, Any]:
    """Step and zero point of the grid from `low` to `high`, moved so that zero lies on it.

    Args:
        low: float32, at most 0.
        high: float32, at least 0.
        bits: int. Defaults to 8.

    Returns:
        (scale, zero point in 0 .. 2 ** bits - 1), both float32; scale 1 for an empty range.
    """
    levels = 2**bits - 1
    scale = (high - low) / levels
    scale = ops.where(scale > 0, scale, ops.ones_like(scale))
    return scale, ops.floor(ops.clip(-low / scale, 0, levels) + 0.5)


def fake_quantize(inputs: Tensor, low: Any, high: Any, bits: int = 8) -> Any:
    """Activations rounded to the nudged grid from `low` to `high`.

    An empty range (`low == high`) means "not known yet" and lets everything pass.

    Args:
        inputs: float tensor of any shape.
        low: float32, at most 0.
        high: float32, at least 0.
        bits: int. Defaults to 8.

    Returns:
        Same shape and dtype. The gradient is 1 inside the range, 0 outside.

    Example:
        >>> import numpy as np
        >>> x = np.array([-9.0, 0.0, 0.5, 9.0], "float32")
        >>> grid = ops.convert_to_numpy(fake_quantize(x, np.float32(-1.0), np.float32(1.55)))
        >>> [round(float(value), 3) for value in grid]
        [-1.0, 0.0, 0.5, 1.55]
    """
    exact = ops.cast(inputs, "float32")
    low, high = ops.convert_to_tensor(low, "float32"), ops.convert_to_tensor(high, "float32")
    scale, zero = nudged_grid(low, high, bits)
    lowest, highest = -zero * scale, (2**bits - 1 - zero) * scale
    clipped = ops.clip(exact, lowest, highest)
    rounded = ops.floor((clipped - lowest) * (1.0 / scale) - zero + 0.5) * scale
    inside = ops.logical_and(exact >= lowest, exact <= highest)
    passed = ops.where(inside, exact, ops.stop_gradient(clipped))
    quantized = passed + ops.stop_gradient(rounded - passed)
    return ops.cast(ops.where(high > low, quantized, exact), inputs.dtype)


class Arithmetic:
    """What fake quantization computes; a subclass can stand in for it, see `computed_by`."""

    def kernel(self, kernel: Tensor, axes: Axes, bits: int) -> Any:
        """The kernel that a layer uses."""
        return fake_quantize_kernel(kernel, axes, bits)

    def activations(self, quantizer: ActivationQuantizer, inputs: Tensor, training: bool) -> Any:
        """The activations that leave a quantizer."""
        low, high = quantizer.follow(inputs) if training else (quantizer.low, quantizer.high)
        return fake_quantize(inputs, low, high, quantizer.bits)


_ARITHMETIC: ContextVar[Arithmetic] = ContextVar("arithmetic", default=Arithmetic())  # noqa: B039


def arithmetic() -> Arithmetic:
    """What computes fake quantization now."""
    return _ARITHMETIC.get()


@contextmanager
def computed_by(other: Arithmetic) -> Iterator[None]:
    """Lets `other` compute all fake quantization inside the block."""
    token = _ARITHMETIC.set(other)
    try:
        yield
    finally:
        _ARITHMETIC.reset(token)


@keras.saving.register_keras_serializable(package="dl_techniques")
class ActivationQuantizer(keras.layers.Layer):
    """Fake quantization of activations with a range that follows them: any shape -> same.

    `low` and `high` are float32 scalars that are not trained: while training they are moving
    averages of every batch's minimum and maximum, zero always included; the first batch, or
    `calibrate`, sets them. Until then activations pass as they are.

    Args:
        bits: int. Defaults to 8.
        momentum: float in [0, 1). Weight of the old range. Defaults to 0.99.
        **kwargs: name, dtype.

    Example:
        >>> import numpy as np
        >>> quantizer = ActivationQuantizer()
        >>> y = quantizer(np.array([[-1.0, 2.0]], "float32"), training=True)
        >>> float(quantizer.low), float(quantizer.high)
        (-1.0, 2.0)
    """

    def __init__(self, bits: int = 8, momentum: float = 0.99, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bits, self.momentum = bits, momentum

    def build(self, input_shape: Any = None) -> None:
        """Creates `low` and `high`, both 0: not known."""
        options: dict[str, Any] = {"initializer": "zeros", "trainable": False, "autocast": False}
        self.low = self.add_weight(name="low", dtype="float32", shape=(), **options)
        self.high = self.add_weight(name="high", dtype="float32", shape=(), **options)

    def call(self, inputs: Tensor, training: bool | None = None) -> Any:
        """Rounds to the range's grid, which follows the inputs first when training."""
        return arithmetic().activations(self, inputs, bool(training))

    def follow(self, inputs: Tensor) -> tuple[Any, Any]:
        """Moves the range towards that of `inputs`; returns the new (low, high)."""
        exact = ops.stop_gradient(ops.cast(inputs, "float32"))
        low, high = ops.minimum(ops.min(exact), 0.0), ops.maximum(ops.max(exact), 0.0)
        old_low, old_high = ops.convert_to_tensor(self.low), ops.convert_to_tensor(self.high)
        known, keep = old_high > old_low, self.momentum
        low = ops.where(known, keep * old_low + (1 - keep) * low, low)
        high = ops.where(known, keep * old_high + (1 - keep) * high, high)
        self.low.assign(low)
        self.high.assign(high)
        return low, high

    @property
    def known(self) -> bool:
        """Whether the range has been set."""
        return float(ops.convert_to_numpy(self.high)) > float(ops.convert_to_numpy(self.low))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "bits": self.bits, "momentum": self.momentum}
