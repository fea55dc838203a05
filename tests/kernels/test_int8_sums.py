"""Sums of products of int8 numbers: those of whole numbers, whichever way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from keras import ops

from dl_techniques.kernels import int8_sums as integer_sums
from dl_techniques.kernels.int8_sums import torch_sums
from dl_techniques.kernels.machine import runs_on_torch
from dl_techniques.kernels.reference import int8_matmul
from tests.helpers import numbers

needs_torch = pytest.mark.skipif(not runs_on_torch(), reason="PyTorch's own products")


def factors(rows: int, depth: int, units: int) -> tuple[Any, Any, Any]:
    """int8 rows and kernel, and their product in whole numbers."""
    rng = np.random.default_rng(rows)
    left = rng.integers(-127, 128, (rows, depth)).astype("int8")
    right = rng.integers(-127, 128, (depth, units)).astype("int8")
    return left, right, left.astype("int64") @ right.astype("int64")


@needs_torch
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("rows", [1, integer_sums.FEW_ROWS, integer_sums.FEW_ROWS + 1])
def test_torch_sums(rows: int, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integer_sums, "multiplies_bytes_fast", lambda: fast)
    monkeypatch.setattr(integer_sums, "PIECE", 100)  # several pieces, the last one smaller
    left, right, product = factors(rows, 17, 24)
    x, kernel = ops.convert_to_tensor(left), ops.convert_to_tensor(right)
    table = ops.convert_to_tensor(np.ascontiguousarray(right.T))
    np.testing.assert_array_equal(numbers(torch_sums(x, kernel)), product)
    np.testing.assert_array_equal(numbers(torch_sums(x, table, transposed=True)), product)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("depth", [5, 1040, 4864])
def test_float_sums(rows: int, depth: int) -> None:
    left, right, product = factors(rows, depth, 7)
    x, kernel = ops.convert_to_tensor(left), ops.convert_to_tensor(right)
    table = ops.convert_to_tensor(np.ascontiguousarray(right.T))
    np.testing.assert_array_equal(numbers(int8_matmul(x, kernel)), product)
    np.testing.assert_array_equal(numbers(int8_matmul(x, table, transposed=True)), product)


def test_the_largest_sums_are_those_of_float32() -> None:
    left = np.full((1, 4864), 127, "int8")
    got = numbers(int8_matmul(ops.convert_to_tensor(left), ops.convert_to_tensor(left.T.copy())))
    np.testing.assert_allclose(got, 4864 * 127.0**2, rtol=1e-4)  # all roundings the same way
