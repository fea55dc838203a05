"""The shifted sum and its hand-written derivative, piece by piece and against the library's."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from dl_techniques.kernels import jax_depthwise as shifted
from dl_techniques.kernels.jax_depthwise_half import packed_sum_of_shifts
from dl_techniques.kernels.table import TABLE
from tests.helpers import numbers, random_array, relative_difference

JAX_ONLY = pytest.mark.skipif(keras.backend.backend() != "jax", reason="a derivative of JAX")
# batch, height, width, channels, kernel, stride, multiplier
CASES = [
    (2, 8, 8, 3, 3, 1, 1),
    (1, 7, 5, 3, 3, 2, 2),
    (2, 6, 9, 2, 7, 1, 2),
    (1, 9, 6, 3, 7, 2, 1),
    (1, 5, 5, 2, 3, 3, 1),
]


def problem(case: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, int]:
    """(padded map, kernel, stride) with random numbers."""
    batch, height, width, channels, size, stride, multiplier = case
    x = random_array(batch, height + size - 1, width + size - 1, channels)
    return x, random_array(size, size, channels, multiplier, seed=8), stride


def upstream_of(case: tuple[int, ...]) -> np.ndarray:
    """A random gradient of the convolution's output."""
    batch, height, width, channels, _, stride, multiplier = case
    return random_array(batch, -(-height // stride), -(-width // stride), channels * multiplier)


def plain_gradients(
    x: np.ndarray, kernel: np.ndarray, upstream: np.ndarray, stride: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the map and of the kernel, place by place in float64."""
    size, _, channels, multiplier = kernel.shape
    for_x, for_kernel = np.zeros(x.shape), np.zeros(kernel.shape)
    kernel64, x64 = kernel.astype("float64"), x.astype("float64")
    for row in range(upstream.shape[1]):
        for column in range(upstream.shape[2]):
            rows = slice(row * stride, row * stride + size)
            columns = slice(column * stride, column * stride + size)
            here = upstream[:, row, column].reshape(-1, channels, multiplier).astype("float64")
            for_x[:, rows, columns] += np.einsum("bcm,ijcm->bijc", here, kernel64)
            for_kernel += np.einsum("bcm,bijc->ijcm", here, x64[:, rows, columns])
    return for_x, for_kernel


@pytest.mark.parametrize("case", CASES)
def test_forward_equals_the_library(case: tuple[int, ...]) -> None:
    x, kernel, stride = problem(case)
    expected = ops.depthwise_conv(x, kernel, stride, "valid", data_format="channels_last")
    assert relative_difference(shifted.shifted_depthwise_conv(x, kernel, stride), expected) < 1e-6


@pytest.mark.parametrize("case", CASES)
def test_gradient_pieces_equal_plain_sums(case: tuple[int, ...]) -> None:
    x, kernel, stride = problem(case)
    upstream = upstream_of(case)
    for_x, for_kernel = plain_gradients(x, kernel, upstream, stride)
    tensors = [ops.convert_to_tensor(a) for a in (x, kernel, upstream)]
    assert relative_difference(shifted._input_gradient(*tensors, stride), for_x) < 1e-5
    assert relative_difference(shifted._kernel_gradient(*tensors, stride), for_kernel) < 1e-5


@pytest.mark.parametrize(("stride", "side"), [(1, 3), (2, 5), (2, 6), (3, 7)])
def test_spread_puts_places_at_multiples_of_the_stride(stride: int, side: int) -> None:
    x = random_array(1, -(-side // stride), -(-side // stride), 2)
    expected = np.zeros((1, side, side, 2))
    expected[:, ::stride, ::stride] = x
    spread = shifted._spread(ops.convert_to_tensor(x), stride, side, side)
    np.testing.assert_array_equal(numbers(spread), expected)


def test_window_is_the_part_under_a_tap() -> None:
    x = random_array(1, 9, 8, 2)
    window = shifted._window(ops.convert_to_tensor(x), 2, 1, 3, 2)
    np.testing.assert_array_equal(numbers(window), x[:, 2:9:2, 1:7:2])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", [*CASES, (2, 3, 4, 5, 1, 1, 1), (1, 8, 8, 4, 7, 1, 3)])
def test_half_precision_is_summed_in_single(case: tuple[int, ...], dtype: str) -> None:
    x, kernel, stride = problem(case)
    rounded = [ops.cast(a, dtype) for a in (x, kernel)]
    wide = [ops.cast(a, "float32") for a in rounded]
    exact = numbers(ops.depthwise_conv(*wide, stride, "valid", data_format="channels_last"))
    outputs = shifted.shifted_depthwise_conv(*rounded, stride)
    assert keras.backend.standardize_dtype(outputs.dtype) == dtype
    assert outputs.shape == exact.shape
    # Only the last rounding is left: half a unit of the last of 8 or 11 bits.
    step = 2**-8 if dtype == "bfloat16" else 2**-11
    error = np.abs(numbers(ops.cast(outputs, "float32")) - exact)
    assert (error <= np.abs(exact) * step + 1e-6).all()


@JAX_ONLY
@pytest.mark.parametrize("multiplier", [1, 2])
def test_packed_sums_are_a_call_and_keep_every_bit(multiplier: int) -> None:
    """Four sums are packed into one number: one that is not finite must not spoil the others."""
    import jax

    x, kernel, stride = problem((1, 6, 6, 3, 3, 1, multiplier))
    x[0, 0, 0, 0], x[0, 5, 5, 1], x[0, 7, 7, 2] = np.inf, np.nan, 1e-39
    halves = [ops.cast(a, "bfloat16") for a in (x, kernel)]
    plain, packed = (
        jax.jit(function, static_argnums=2)
        for function in (shifted._sum_of_shifts, packed_sum_of_shifts)
    )
    ours, theirs = packed(*halves, stride), plain(*halves, stride)
    assert (np.isfinite(numbers(theirs)) == np.isfinite(numbers(ours))).all()
    assert not np.isfinite(numbers(ours)).all()
    np.testing.assert_allclose(numbers(ours), numbers(theirs), rtol=2**-7)
    compiled = packed.lower(*halves, stride).compile().as_text()
    assert re.search(r"= c64\S+ call\(", compiled)  # else the sums are computed by their readers


def test_shifts_are_for_jax_without_accelerator_only() -> None:
    chosen = TABLE["depthwise_conv"].chosen()
    if keras.backend.backend() != "jax":
        assert chosen is not shifted.jax_depthwise_conv
    else:
        import jax

        assert (chosen is shifted.jax_depthwise_conv) == (jax.default_backend() == "cpu")


@JAX_ONLY
@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_those_of_the_grouped_convolution(case: tuple[int, ...]) -> None:
    import jax

    x, kernel, stride = problem(case)
    weight = upstream_of(case)

    def loss(convolve: Any) -> Any:
        return jax.jit(jax.grad(lambda a, k: (convolve(a, k) ** 2 * weight).sum(), argnums=(0, 1)))

    ours = loss(lambda a, k: shifted.shifted_depthwise_conv(a, k, stride))
    library = loss(
        lambda a, k: ops.depthwise_conv(a, k, stride, "valid", data_format="channels_last")
    )
    for mine, theirs in zip(ours(x, kernel), library(x, kernel), strict=True):
        assert relative_difference(mine, theirs) < 1e-5


@JAX_ONLY
def test_gradients_keep_half_precision() -> None:
    import jax

    x, kernel, stride = problem(CASES[1])
    half = [ops.cast(a, "bfloat16") for a in (x, kernel)]
    gradients = jax.grad(
        lambda a, k: shifted.shifted_depthwise_conv(a, k, stride).sum(), argnums=(0, 1)
    )(*half)
    assert [str(g.dtype) for g in gradients] == ["bfloat16", "bfloat16"]
    exact = plain_gradients(x, kernel, np.ones_like(upstream_of(CASES[1])), stride)
    for mine, plain in zip(gradients, exact, strict=True):
        assert relative_difference(mine, plain) < 0.02


@JAX_ONLY
def test_the_map_stands_behind_a_barrier() -> None:
    """Else XLA computes the map anew at every tap; only the time of many blocks shows it."""
    import jax

    def lowered(function: Any) -> str:
        x, kernel, _ = problem(CASES[0])
        text: str = jax.jit(function).lower(x, kernel).as_text()
        return text

    assert "optimization_barrier" in lowered(shifted.shifted_depthwise_conv)
    gradient = jax.grad(lambda x, k: (shifted.shifted_depthwise_conv(x, k) ** 2).sum())
    assert "optimization_barrier" in lowered(gradient)
