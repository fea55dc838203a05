"""Kinds of attention against plain loops over places."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from dl_techniques.layers.attention_kinds import attend, check_kind

ELSEWHERE = pytest.mark.once  # JAX compiles every operation anew for each size
SIZES = [
    (5, 7),
    (1, 9),
    pytest.param((4, 6), marks=ELSEWHERE),
    pytest.param((8, 3), marks=ELSEWHERE),
]


def problem(size: tuple[int, int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(2, *size, 2, 4)).astype("float32") for _ in range(3)]


def softmax_mean(query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    scores = keys @ query / np.sqrt(len(query))
    weights = np.exp(scores - scores.max())
    return weights @ values / weights.sum()


def kernel_mean(query: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    def phi(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))

    weights = phi(keys) @ phi(query)
    return weights @ values / weights.sum()


def seen(kind: str, extent: int, x: np.ndarray, row: int, column: int) -> np.ndarray:
    """What a place looks at, as float[places, D]."""
    height, width, size = x.shape
    if kind == "window":
        top, left = row // extent * extent, column // extent * extent
        return x[top : top + extent, left : left + extent].reshape(-1, size)
    if kind == "strided":
        cells = [
            x[top : top + extent, left : left + extent].reshape(-1, size).mean(0)
            for top in range(0, height, extent)
            for left in range(0, width, extent)
        ]
        return np.stack(cells)
    return x.reshape(-1, size)


def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray, kind: str, extent: int) -> np.ndarray:
    out = np.zeros_like(v)
    mean = kernel_mean if kind == "linear" else softmax_mean
    for b, row, column, head in np.ndindex(q.shape[:4]):
        keys = seen(kind, extent, k[b, :, :, head], row, column)
        values = seen(kind, extent, v[b, :, :, head], row, column)
        out[b, row, column, head] = mean(q[b, row, column, head], keys, values)
    return out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("kind", "extent"),
    [("full", 0), ("window", 2), ("window", 4), ("strided", 2), ("strided", 3), ("linear", 0)],
)
def test_equals_plain_loops(kind: str, extent: int, size: tuple[int, int]) -> None:
    q, k, v = problem(size)
    out = ops.convert_to_numpy(attend(q, k, v, kind, extent))
    expected = reference(q, k, v, kind, extent)
    assert np.abs(out - expected).max() < 2e-6 * np.abs(expected).max()


def test_kinds_with_the_whole_map_in_one_window_are_full() -> None:
    q, k, v = problem((4, 6))
    full = ops.convert_to_numpy(attend(q, k, v))
    np.testing.assert_allclose(ops.convert_to_numpy(attend(q, k, v, "window", 6)), full, atol=2e-6)
    np.testing.assert_allclose(ops.convert_to_numpy(attend(q, k, v, "strided", 1)), full, atol=2e-6)


def test_linear_attention_mixes_all_places() -> None:
    q, k, v = problem((4, 4))
    before = ops.convert_to_numpy(attend(q, k, v, "linear"))
    v[:, 3, 3] += 10.0
    after = ops.convert_to_numpy(attend(q, k, v, "linear"))
    assert np.all(np.abs(after - before).max(axis=(0, 3, 4)) > 1e-2)


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="one of full, window"):
        check_kind("windows", None)
    with pytest.raises(ValueError, match="has no extent"):
        check_kind("linear", 4)
    with pytest.raises(ValueError, match="at least 1"):
        check_kind("window", 0)
    assert check_kind("window", None) == 8 and check_kind("full", None) == 0
