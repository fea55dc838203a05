"""Quantized dense layers multiplied our way: bit for bit what Keras computes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from dl_techniques import kernels
from dl_techniques.kernels import machine, transposed
from dl_techniques.kernels.machine import runs_on_torch
from dl_techniques.layers.dense import (
    kernels_to_transpose,
    lay_out_for_one_row,
    project,
    project_each,
    project_to_vocabulary,
    without_gradients,
)
from tests.helpers import Array, numbers, random_array
from tests.kernels.test_table import gradients

DENSE: dict[str, tuple[Any, tuple[int, ...]]] = {
    "dense": (lambda: keras.layers.Dense(6, activation="silu"), (2, 3, 8)),
    "heads": (lambda: keras.layers.EinsumDense("bqm,muh->bquh", (None, 2, 5), bias_axes="uh"),
              (2, 3, 8)),
    "merged": (lambda: keras.layers.EinsumDense("bquh,uhm->bqm", (None, 7)), (2, 3, 2, 4)),
    "swapped": (lambda: keras.layers.EinsumDense("bqm,hm->bqh", (None, 5)), (2, 3, 8)),
}  # fmt: skip


@pytest.fixture
def our_products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the kernels that were multiplied our way."""
    seen: list[tuple[int, ...]] = []
    multiply = kernels.int8_matmul

    def counting(left: Any, right: Any, **options: Any) -> Any:
        seen.append(tuple(sorted(right.shape)))
        return multiply(left, right, **options)

    monkeypatch.setattr(kernels, "int8_matmul", counting)
    return seen


def quantized(name: str, dtype: str = "float32") -> tuple[keras.layers.Layer, Array]:
    """A layer in int8 with random numbers, and an input for it."""
    make, shape = DENSE[name]
    layer = make()
    layer.dtype_policy = dtype
    layer.build(shape)
    layer.set_weights([random_array(*w.shape, seed=i) for i, w in enumerate(layer.weights)])
    layer.quantize("int8")
    return layer, random_array(*shape, seed=9) * 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", DENSE)
def test_the_same_numbers(name: str, dtype: str, our_products: list[Any]) -> None:
    layer, x = quantized(name, dtype)
    with keras.device("cpu:0"):
        expected = numbers(ops.cast(layer(x), "float32"))
        assert not our_products
        got = numbers(ops.cast(project(layer, x), "float32"))
    np.testing.assert_array_equal(got, expected)
    assert np.abs(expected).max() > 0.1
    assert len(our_products) == (runs_on_torch() and name != "swapped")


def test_several_layers_of_one_input(our_products: list[Any]) -> None:
    (dense, x), (heads, _) = quantized("dense"), quantized("heads")
    plain = keras.layers.Dense(3)
    plain.build((None, 8))
    for layers in ((dense, heads), (heads, dense), (dense, plain)):
        for layer, got in zip(layers, project_each(layers, x), strict=True):
            np.testing.assert_array_equal(numbers(got), numbers(layer(x)))
    assert our_products == [(6, 8), (8, 10), (8, 10), (6, 8)] * runs_on_torch()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", DENSE)
def test_the_same_numbers_without_gradients(
    name: str, rows: int, dtype: str, our_products: list[Any]
) -> None:
    layer, x = quantized(name, dtype)
    x = x.reshape(-1, *x.shape[2:])[None, :rows]
    backend = keras.config.backend()
    with keras.device("cpu:0"):
        expected = numbers(ops.cast(layer(x), "float32"))
        wanted = kernels_to_transpose(layer)
        assert len(wanted) == (backend == "jax" and name != "swapped")
        copies = {id(kernel): transposed(kernel.value, axes) for kernel, axes in wanted}
        with without_gradients(copies):
            got = numbers(ops.cast(project(layer, x), "float32"))
    np.testing.assert_array_equal(got, expected)
    ours = {"torch": True, "jax": rows == 1, "tensorflow": rows > 1}[backend]
    assert len(our_products) == (ours and name != "swapped")


@pytest.mark.parametrize("tied", [True, False])
def test_one_row_of_logits_without_gradients(tied: bool, our_products: list[Any]) -> None:
    table = keras.layers.ReversibleEmbedding(11, 8, tie_weights=tied)
    table.build((None, None))
    table.set_weights([random_array(*w.shape, seed=i) for i, w in enumerate(table.weights)])
    table.quantize("int8")
    x = random_array(1, 1, 8, seed=9)
    wanted = kernels_to_transpose(table)
    with without_gradients({id(kernel): transposed(kernel.value, axes) for kernel, axes in wanted}):
        got = numbers(project_to_vocabulary(table, x))
    np.testing.assert_array_equal(got, numbers(table(x, reverse=True)))
    ours = {"torch": True, "jax": True, "tensorflow": False}[keras.config.backend()]
    assert len(our_products) == ours


@pytest.mark.parametrize("tied", [True, False])
def test_the_same_logits(tied: bool, our_products: list[Any]) -> None:
    table = keras.layers.ReversibleEmbedding(11, 8, tie_weights=tied)
    table.build((None, None))
    table.set_weights([random_array(*w.shape, seed=i) for i, w in enumerate(table.weights)])
    table.quantize("int8")
    x = random_array(2, 3, 8, seed=9)
    got = numbers(project_to_vocabulary(table, x))
    assert our_products == [(8, 11)] * runs_on_torch()
    np.testing.assert_array_equal(got, numbers(table(x, reverse=True)))


def test_soft_caps_are_kept(our_products: list[Any]) -> None:
    table = keras.layers.ReversibleEmbedding(11, 8, logit_soft_cap=2.0)
    table.build((None, None))
    table.quantize("int8")
    logits = numbers(project_to_vocabulary(table, 1e4 * random_array(1, 8)))
    assert np.abs(logits).max() <= 2.0 and not our_products


@pytest.mark.parametrize("mode", ["int8", "int4"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_logits_are_differentiated_as_if_nothing_were_rounded(
    mode: str, tied: bool, cap: float | None
) -> None:
    table = keras.layers.ReversibleEmbedding(11, 8, tie_weights=tied, logit_soft_cap=cap)
    table.build((None, None))
    table.set_weights([0.1 * random_array(*w.shape, seed=i) for i, w in enumerate(table.weights)])
    table.quantize(mode)
    x = random_array(2, 3, 8, seed=3)
    (got,) = gradients(lambda rows: project_to_vocabulary(table, rows), [x])
    logits = numbers(table(x, reverse=True))
    rows = numbers(table(np.eye(8, dtype="float32"), reverse=True))  # a 1 is rounded to itself
    upstream = random_array(*logits.shape, seed=9)
    if cap is not None:
        rows, upstream = cap * np.arctanh(rows / cap), upstream * (1 - (logits / cap) ** 2)
    expected = upstream @ rows.T
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("mode", [None, "int4"])
def test_other_layers_are_called(mode: str | None, our_products: list[Any]) -> None:
    layer = keras.layers.Dense(4)
    layer.build((None, 8))
    if mode:
        layer.quantize(mode)
    x = random_array(2, 8)
    np.testing.assert_array_equal(numbers(project(layer, x)), numbers(layer(x)))
    assert not our_products


def test_layers_without_a_kernel_are_called() -> None:
    class Kernelless(keras.layers.Dense):
        """As GPTQ leaves a layer."""

        def build(self, input_shape: Any) -> None:
            self.built = True

        def call(self, inputs: Any) -> Any:
            return 2 * inputs

    assert numbers(project(Kernelless(3), np.ones((1, 3), "float32"))).tolist() == [[2, 2, 2]]


def test_adapters_are_kept(our_products: list[Any]) -> None:
    layer, x = quantized("dense")
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(random_array(*layer.lora_kernel_b.shape))
    np.testing.assert_array_equal(numbers(project(layer, x)), numbers(layer(x)))
    assert not our_products


def test_shapes_alone_are_no_product(our_products: list[Any]) -> None:
    layer, _ = quantized("dense")
    assert project(layer, keras.KerasTensor((None, 3, 8))).shape == (None, 3, 6)
    assert not our_products


@pytest.mark.parametrize("name", ["dense", "heads", "merged"])
def test_kernels_lie_by_their_units_where_that_is_faster(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = quantized(name)
    before, expected = layer.get_weights(), numbers(project(layer, x))
    monkeypatch.setattr(machine, "multiplies_bytes_fast", lambda: False)
    assert lay_out_for_one_row(layer) == 0
    monkeypatch.setattr(machine, "multiplies_bytes_fast", lambda: True)
    with keras.device("cpu:0"):
        assert lay_out_for_one_row(layer) == runs_on_torch()
    assert lay_out_for_one_row(layer) == 0  # it lies so already
    kernel = numbers(layer._kernel)
    if runs_on_torch():
        assert layer._kernel.value.reshape(8, -1).stride()[0] == 1  # eight numbers meet the input
    np.testing.assert_array_equal(numbers(project(layer, x)), expected)
    for ours, theirs in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    layer._kernel.assign(kernel // 2)
    np.testing.assert_array_equal(numbers(layer._kernel), kernel // 2)
