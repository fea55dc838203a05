"""The arithmetic of fusing, as pure functions on float64 arrays in Keras' layouts.

A linear map over a k x k window is a pair (kernel, bias). Dense kernels are [k, k, in, out],
depthwise ones [k, k, in, m] with output channel `c * m + i`; biases are [out]. Everything runs
in float64, so that the only rounding is the final cast to the variable's dtype.

Reference: Ding et al., "RepVGG", arXiv:2101.03697, section 3.3; Vasu et al., "MobileOne",
arXiv:2206.04040, section 3.2; Vasu et al., "FastViT", arXiv:2303.14189, section 3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from keras import ops

Array = np.ndarray[Any, np.dtype[Any]]


class Linear(NamedTuple):
    """A convolution as arrays: kernel float64[k, k, in, out or m] and bias float64[out]."""

    kernel: Array
    bias: Array

    def __add__(self, other: object) -> Linear:
        """Sum of two parallel branches of equal kernel size."""
        if not isinstance(other, Linear):
            return NotImplemented
        return Linear(self.kernel + other.kernel, self.bias + other.bias)

    def minus(self, other: Linear) -> Linear:
        """Difference of two parallel branches."""
        return Linear(self.kernel - other.kernel, self.bias - other.bias)


def as_float64(tensor: Any) -> Array:
    """A variable's or tensor's value as a float64 array."""
    return np.asarray(ops.convert_to_numpy(tensor)).astype(np.float64)


def batch_norm_affine(norm: Any) -> tuple[Array, Array]:
    """(scale, shift) of a BatchNorm at inference: `y = x * scale + shift`, each float64[C]."""
    scale = as_float64(norm.gamma) / np.sqrt(as_float64(norm.moving_variance) + norm.epsilon)
    return scale, as_float64(norm.beta) - as_float64(norm.moving_mean) * scale


def scale_outputs(kernel: Array, scale: Array, depthwise: bool) -> Array:
    """Multiplies output channel o of a kernel by `scale[o]`."""
    if depthwise:
        return kernel * scale.reshape(kernel.shape[2:])
    return kernel * scale


def fuse_norm(kernel: Array, norm: Any, depthwise: bool) -> Linear:
    """A bias-free convolution followed by a BatchNorm, as one convolution."""
    scale, shift = batch_norm_affine(norm)
    return Linear(scale_outputs(kernel, scale, depthwise), shift)


def centre_pad(kernel: Array, size: int) -> Array:
    """Embeds a smaller odd kernel in the middle of a size x size one."""
    margin = (size - kernel.shape[0]) // 2
    return np.pad(kernel, [(margin, margin), (margin, margin), (0, 0), (0, 0)])


def identity_kernel(size: int, channels: int, depthwise: bool) -> Array:
    """The kernel that copies its input: a delta in the centre."""
    kernel = np.zeros((size, size, channels, 1 if depthwise else channels))
    kernel[size // 2, size // 2] = 1.0 if depthwise else np.eye(channels)
    return kernel


def fuse_identity_norm(norm: Any, size: int, depthwise: bool) -> Linear:
    """A BatchNorm alone, as a convolution."""
    scale, shift = batch_norm_affine(norm)
    identity = identity_kernel(size, len(scale), depthwise)
    return Linear(scale_outputs(identity, scale, depthwise), shift)


def relative_change(old: Array, new: Array) -> float:
    """Largest difference over the largest value."""
    return float(np.max(np.abs(old - new)) / max(float(np.max(np.abs(old))), 1e-30))
