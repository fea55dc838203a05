"""Every kernel against its reference: dtypes, odd shapes, gradients, eager and traced."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from dl_techniques import kernels
from dl_techniques.errors import DLTechniquesError
from dl_techniques.kernels import jax_products, machine
from dl_techniques.kernels.table import TABLE
from dl_techniques.runtime.compile import compile_function
from tests.helpers import Array, numbers, random_array, relative_difference

Case = tuple[list[Array], dict[str, Any]]
TOLERANCE = {"float32": 1e-5, "bfloat16": 0.03}


def conv_cases(channels: int, outputs: int, depthwise: bool) -> list[Case]:
    found = []
    for i, (size, stride) in enumerate(((1, 1), (3, 1), (3, 2), (7, 2))):
        last = outputs * channels if depthwise else outputs
        kernel = random_array(size, size, channels, outputs, seed=i)
        bias = [random_array(last)] if i else []
        found.append(([random_array(2, 9, 6, channels), kernel, *bias], {"stride": stride}))
    return found


def attention_arrays(groups: int = 1, length: int = 5, slots: int = 5) -> list[Array]:
    keys = (2, slots, 3, 4)
    return [
        random_array(2, length, 3 * groups, 4),
        random_array(*keys, seed=1),
        random_array(*keys, seed=2),
    ]


ROWS = random_array(3, 8)
INT8 = np.random.default_rng(3).integers(-127, 128, (3, 17)).astype("int8")
KERNEL8 = np.random.default_rng(4).integers(-127, 128, (17, 5)).astype("int8")
FLOATS: dict[str, list[Case]] = {
    "conv": conv_cases(5, 4, depthwise=False),
    "depthwise_conv": [*conv_cases(5, 1, True), *conv_cases(4, 2, True)],
    "dense": [
        ([random_array(2, 3, 7), random_array(7, 5)], {}),
        ([random_array(1, 7), random_array(7, 5), random_array(5)], {"with_gelu": True}),
    ],
    "to_vocabulary": [
        ([random_array(2, 3, 7), random_array(11, 7)], {}),
        ([random_array(1, 1, 7), random_array(11, 7)], {}),
    ],
    "matmul": [([random_array(2, 3, 7), random_array(2, 7, 5)], {})],
    "gelu": [([4 * random_array(3, 5, 7)], {})],
    "silu": [([4 * random_array(3, 5, 7)], {})],
    "attention": [(attention_arrays(), {})],
    "rms_norm": [([random_array(2, 3, 7), random_array(7)], {"epsilon": 1e-6})],
    "rotate": [
        ([random_array(2, 3, 4, 6), random_array(1, 3, 1, 6), random_array(1, 3, 1, 6)], {})
    ],
    "rescale": [([random_array(3, 5), 2 + random_array(3, 5, seed=1)], {})],
}
DIFFERENTIABLE = ("conv", "depthwise_conv", "dense", "matmul", "gelu", "silu", "attention")


@pytest.fixture(autouse=True)
def on_any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX's products in bfloat16 give the same numbers on every processor."""
    if keras.config.backend() == "jax":
        for module in (machine, jax_products):
            monkeypatch.setattr(module, "multiplies_bfloat16", machine.runs_on_jax_cpu)


def tensors(arrays: list[Array], dtype: str) -> list[Any]:
    return [ops.cast(ops.convert_to_tensor(a), dtype) for a in arrays]


def cases() -> list[Any]:
    return [
        pytest.param(name, i, id=f"{name}-{i}")
        for name, found in FLOATS.items()
        for i in range(len(found))
    ]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "index"), cases())
def test_the_same_as_the_reference(name: str, index: int, dtype: str) -> None:
    arrays, options = FLOATS[name][index]
    exact = TABLE[name].reference(*tensors(arrays, "float32"), **options)
    function: Callable[..., Any] = getattr(kernels, name)
    with keras.device("cpu:0"):
        eager = function(*tensors(arrays, dtype), **options)
        traced = compile_function(lambda *given: function(*given, **options), [])(
            *tensors(arrays, dtype)
        )
    for got in (eager, traced):
        assert tuple(got.shape) == tuple(exact.shape)
        assert relative_difference(got, exact) < TOLERANCE[dtype]


def gradients(function: Callable[..., Any], arrays: list[Array]) -> list[Array]:
    """Of a weighted sum of the outputs, for each array."""

    def loss(*given: Any) -> Any:
        outputs = ops.cast(function(*given), "float32")
        return ops.sum(ops.multiply(outputs, random_array(*outputs.shape, seed=9)))

    backend, given = keras.config.backend(), tensors(arrays, "float32")
    if backend == "jax":
        import jax

        return [numbers(g) for g in jax.grad(loss, argnums=tuple(range(len(given))))(*given)]
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(given)
            value = loss(*given)
        return [numbers(g) for g in tape.gradient(value, given)]
    given = [tensor.detach().requires_grad_() for tensor in given]
    loss(*given).backward()
    return [numbers(tensor.grad) for tensor in given]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_are_those_of_the_reference(name: str) -> None:
    for arrays, options in FLOATS[name]:
        ours = gradients(lambda *a, o=options: getattr(kernels, name)(*a, **o), arrays)
        theirs = gradients(lambda *a, o=options: TABLE[name].reference(*a, **o), arrays)
        for mine, plain in zip(ours, theirs, strict=True):
            assert relative_difference(mine, plain) < 1e-5


@pytest.mark.parametrize(("groups", "length"), [(1, 4), (2, 4), (2, 1)])
def test_grouped_attention(groups: int, length: int) -> None:
    arrays = attention_arrays(groups, length, slots=6)
    visible = np.arange(6)[None, None] <= np.arange(length)[None, :, None] + 1
    visible = np.broadcast_to(visible, (2, length, 6))
    query, keys, values = tensors(arrays, "float32")
    got = kernels.grouped_attention(
        query, keys, values, kernels.attention_mask(ops.convert_to_tensor(visible), "float32")
    )
    reference = TABLE["grouped_attention"].reference
    expected = reference(query, keys, values, ops.convert_to_tensor(visible))
    assert relative_difference(got, expected) < 1e-5


@pytest.mark.parametrize("index", [2, "tensor"])
def test_rows_are_written(index: Any) -> None:
    cache, rows = random_array(2, 6, 3, 4), random_array(2, 2, 3, 4, seed=1)
    place = ops.convert_to_tensor(np.int32(2)) if index == "tensor" else index
    got = kernels.write_rows(
        ops.convert_to_tensor(cache), kernels.row_places(place, 2), ops.convert_to_tensor(rows)
    )
    expected = np.concatenate([cache[:, :2], rows, cache[:, 4:]], axis=1)
    np.testing.assert_array_equal(numbers(got), expected)


def test_slots_are_written() -> None:
    cache, new = random_array(4, 6, 3, 4), random_array(2, 2, 3, 4, seed=1)
    rows, slots = np.array([3, 1], "int32"), np.array([[2, 5], [0, 4]], "int32")
    expected = cache.copy()
    expected[rows[:, None], slots] = new
    given = (ops.convert_to_tensor(x) for x in (cache.copy(), rows, slots, new))
    np.testing.assert_array_equal(numbers(kernels.write_slots(*given)), expected)


@pytest.mark.parametrize("zero_row", [False, True])
def test_rows_are_quantized(zero_row: bool) -> None:
    rows = np.zeros_like(ROWS) if zero_row else ROWS
    got = kernels.quantize_rows(ops.convert_to_tensor(rows), (-127, 127), 1e-7)
    expected = TABLE["quantize_rows"].reference(ops.convert_to_tensor(rows), (-127, 127), 1e-7)
    np.testing.assert_array_equal(numbers(got[0]), numbers(expected[0]))
    if not zero_row:  # else the scale is that of no number
        np.testing.assert_array_equal(numbers(got[1]), numbers(expected[1]))


@pytest.mark.parametrize("transposed", [False, True])
def test_integers_are_multiplied(transposed: bool) -> None:
    kernel = np.ascontiguousarray(KERNEL8.T) if transposed else KERNEL8
    given = ops.convert_to_tensor(INT8), ops.convert_to_tensor(kernel)
    with keras.device("cpu:0"):
        got = kernels.int8_matmul(*given, transposed=transposed)
    np.testing.assert_array_equal(numbers(got), INT8.astype("int64") @ KERNEL8.astype("int64"))


TOGETHER = {"attention_mask", "grouped_attention", "row_places", "write_rows", "write_slots"}


def test_every_kernel_is_tested_and_documented() -> None:
    tested = {*FLOATS, *TOGETHER, "quantize_rows", "int8_matmul"}
    assert tested == set(TABLE)
    for name in TABLE:
        assert name in kernels.__all__ and getattr(kernels, name).__doc__


def test_the_switch_leaves_the_references_alone() -> None:
    arrays, options = FLOATS["conv"][1]
    with kernels.use("reference"):
        assert kernels.kind() == "reference"
        for name, found in FLOATS.items():
            given = tensors(found[0][0], "float32")
            assert TABLE[name].chosen(*given, **found[0][1]) is TABLE[name].reference
        assert not kernels.takes_dense(arrays[0], "bfloat16", trains=False)
        assert not kernels.prefers_matrices() and not kernels.prefers_transposed_rows()
    assert kernels.kind() == os.environ.get(machine.VARIABLE, "fastest")
    with pytest.raises(DLTechniquesError, match="'slow'; expected one of fastest, reference"):
        kernels.use("slow")


@pytest.mark.once
def test_the_environment_switches_too() -> None:
    code = "from dl_techniques import kernels; print(kernels.kind())"
    for word, said in (("reference", "reference\n"), ("", "fastest\n")):
        environment = {**os.environ, machine.VARIABLE: word}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment
        )
        assert done.stdout == said
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, machine.VARIABLE: "none"},
    )
    assert "DL_TECHNIQUES_KERNELS is 'none'; expected one of" in done.stderr
