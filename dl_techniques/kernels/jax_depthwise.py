"""Depthwise convolution as shifted multiply-adds, for JAX on CPU.

XLA's grouped convolution on CPU is 10 to 30 times slower than the same sum written as k * k
multiply-adds over the padded map, and its gradient with a stride is slower still.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from dl_techniques.kernels.jax_depthwise_half import packed_sum_of_shifts, packs
from dl_techniques.kernels.machine import is_jax_on_cpu
from dl_techniques.kernels.reference import pad_symmetrically
from dl_techniques.typing import Tensor


def jax_depthwise_conv(
    x: Tensor, kernel: Tensor, bias: Tensor | None = None, stride: int = 1
) -> Any:
    """Depthwise convolution with `k // 2` zeros on each side.

    Args:
        x: float[B, H, W, C].
        kernel: float[k, k, C, m], Keras' layout.
        bias: float[C * m] or None.
        stride: int. Same stride for both axes.

    Returns:
        float[B, ceil(H / stride), ceil(W / stride), C * m].
    """
    outputs = shifted_depthwise_conv(pad_symmetrically(x, kernel.shape[0]), kernel, stride)
    return outputs if bias is None else ops.add(outputs, bias)


def shifted_depthwise_conv(padded: Tensor, kernel: Tensor, stride: int = 1) -> Any:
    """Depthwise convolution of an already padded map, "valid", as shifted multiply-adds.

    The sum runs in float32 when the inputs are half precision: the many additions would
    otherwise round at every step.

    Args:
        padded: float[B, H + k - 1, W + k - 1, C].
        kernel: float[k, k, C, m], Keras' depthwise layout.
        stride: int. Same stride for both axes.

    Returns:
        float[B, H', W', C * m], dtype of `padded`; channel `c * m + i` comes from input `c`.
    """
    return _compiled()(ops.convert_to_tensor(padded), ops.convert_to_tensor(kernel), stride)


@functools.cache
def _compiled() -> Callable[..., Any]:
    """`_sum_of_shifts`, fused into one loop also when it is called eagerly."""
    if not is_jax_on_cpu():
        return _sum_of_shifts
    import jax

    return jax.jit(_differentiable(jax), static_argnums=2)


def _sum_of_shifts(padded: Tensor, kernel: Tensor, stride: int) -> Any:
    """The forward sum, for any backend."""
    dtype = padded.dtype
    size, _, channels, multiplier = kernel.shape
    x, taps = _single_precision(padded), _single_precision(kernel)
    if multiplier > 1:
        x = ops.repeat(x, multiplier, axis=-1)
    taps = ops.reshape(taps, (size, size, channels * multiplier))
    total: Any = 0.0
    for i, j in _taps(size):
        total = total + _window(x, i, j, size, stride) * taps[i, j]
    return ops.cast(total, dtype)


def _differentiable(jax: Any) -> Callable[..., Any]:
    """`_sum_of_shifts` with a derivative that is itself made of shifts and plain reductions.

    Left to itself, JAX transposes every strided slice into a scatter; written out, the input's
    gradient is the same sum over the flipped kernel, and a kernel's tap is one reduction.

    The map stands behind a barrier: XLA would fuse what computes it into each of the k * k reads,
    and with it the residual sums of all blocks before: time grew faster than depth.
    """
    barrier = jax.lax.optimization_barrier

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
    def convolve(padded: Tensor, kernel: Tensor, stride: int) -> Any:
        return _forward_sum(barrier(padded), kernel, stride)

    def forward(padded: Tensor, kernel: Tensor, stride: int) -> tuple[Any, Any]:
        padded = barrier(padded)
        return _forward_sum(padded, kernel, stride), (padded, kernel)

    def backward(stride: int, saved: Any, gradient: Tensor) -> tuple[Any, Any]:
        padded, kernel = saved
        upstream = _single_precision(gradient)
        return (
            ops.cast(_input_gradient(padded, kernel, upstream, stride), padded.dtype),
            ops.cast(_kernel_gradient(padded, kernel, upstream, stride), kernel.dtype),
        )

    convolve.defvjp(forward, backward)
    return convolve


def _forward_sum(padded: Tensor, kernel: Tensor, stride: int) -> Any:
    """The forward sum on JAX's CPU: of halves four outputs at a time."""
    if packs(keras.backend.standardize_dtype(padded.dtype), kernel.shape[3]):
        return packed_sum_of_shifts(padded, kernel, stride)
    return _sum_of_shifts(padded, kernel, stride)


def _input_gradient(padded: Tensor, kernel: Tensor, upstream: Tensor, stride: int) -> Any:
    """Gradient of the padded map: the upstream, spread by the stride, times the flipped kernel."""
    size, _, channels, multiplier = kernel.shape
    height, width = padded.shape[1:3]
    spread = _spread(upstream, stride, height - size + 1, width - size + 1)
    margin = size - 1
    spread = ops.pad(spread, [[0, 0], [margin, margin], [margin, margin], [0, 0]])
    taps = ops.reshape(_single_precision(kernel), (size, size, channels * multiplier))
    total: Any = 0.0
    for i, j in _taps(size):
        window = _slice(spread, (i, j), (i + height, j + width))
        total = total + window * taps[size - 1 - i, size - 1 - j]
    if multiplier == 1:
        return total
    return ops.sum(ops.reshape(total, (-1, height, width, channels, multiplier)), axis=-1)


def _kernel_gradient(padded: Tensor, kernel: Tensor, upstream: Tensor, stride: int) -> Any:
    """Gradient of the kernel: one sum over batch and places for each tap.

    A loop, not k * k sums side by side: into each of these XLA would fuse whatever computes the map
    and the upstream, and compute (and compile) it k * k times.
    """
    size, _, channels, multiplier = kernel.shape
    x = _single_precision(padded)
    if multiplier > 1:
        x = ops.repeat(x, multiplier, axis=-1)
    batch, height, width = x.shape[0], x.shape[1] - size + 1, x.shape[2] - size + 1

    def tap(index: Tensor) -> Any:
        start = ops.stack([0 * index, index // size, index % size, 0 * index])
        window = ops.slice(x, start, (batch, height, width, channels * multiplier))
        return ops.sum(_slice(window, (0, 0), (height, width), stride) * upstream, axis=(0, 1, 2))

    sums = ops.map(tap, ops.arange(size * size))
    return ops.reshape(sums, (size, size, channels, multiplier))


def _spread(x: Tensor, stride: int, height: int, width: int) -> Any:
    """Puts `stride - 1` zeros between the places of `x`, then cuts or pads to height x width."""
    if stride > 1:
        batch, h, w, channels = x.shape
        x = ops.reshape(x, (batch, h, 1, w, 1, channels))
        x = ops.pad(x, [[0, 0], [0, 0], [0, stride - 1], [0, 0], [0, stride - 1], [0, 0]])
        x = ops.reshape(x, (batch, h * stride, w * stride, channels))
    x = x[:, :height, :width]
    return ops.pad(x, [[0, 0], [0, height - x.shape[1]], [0, width - x.shape[2]], [0, 0]])


def _window(x: Tensor, i: int, j: int, size: int, stride: int) -> Any:
    """The part of the padded map that tap (i, j) multiplies: float[B, H', W', C]."""
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    return _slice(x, (i, j), (i + height, j + width), stride)


def _slice(x: Tensor, start: tuple[int, int], stop: tuple[int, int], stride: int = 1) -> Any:
    """`x[:, start0:stop0:stride, start1:stop1:stride]`; on JAX without its slow index parser."""
    if not is_jax_on_cpu():
        return x[:, start[0] : stop[0] : stride, start[1] : stop[1] : stride]
    import jax

    batch, _, _, channels = x.shape
    return jax.lax.slice(x, (0, *start, 0), (batch, *stop, channels), (1, stride, stride, 1))


def _taps(size: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(size) for j in range(size)]


def _single_precision(x: Tensor) -> Any:
    """Half precision widened to float32; float32 and float64 as they are."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.cast(x, "float32") if dtype in ("float16", "bfloat16") else ops.convert_to_tensor(x)
