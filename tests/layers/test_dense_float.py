"""Dense layers in floating point multiplied our way: what Keras computes, and where."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from dl_techniques import kernels
from dl_techniques.kernels.machine import multiplies_bfloat16, runs_on_torch
from dl_techniques.layers.activations import gelu
from dl_techniques.layers.dense import project_with_gelu
from dl_techniques.layers.dense_float import floats_to_vocabulary, project_floats
from tests.helpers import Array, numbers, random_array, relative_difference

DENSE: dict[str, tuple[Any, tuple[int, ...]]] = {
    "dense": (lambda: keras.layers.Dense(6, activation="silu"), (2, 3, 8)),
    "row": (lambda: keras.layers.Dense(6), (1, 1, 8)),
    "heads": (lambda: keras.layers.EinsumDense("bqm,muh->bquh", (None, 2, 5), bias_axes="uh"),
              (2, 3, 8)),
    "shared bias": (lambda: keras.layers.EinsumDense("bqm,muh->bquh", (None, 2, 5), bias_axes="h"),
                    (2, 3, 8)),
    "merged": (lambda: keras.layers.EinsumDense("bquh,uhm->bqm", (None, 7)), (2, 3, 2, 4)),
    "swapped": (lambda: keras.layers.EinsumDense("bqm,hm->bqh", (None, 5)), (2, 3, 8)),
}  # fmt: skip
POLICIES = [("float32", 1e-6), ("bfloat16", 0.02), ("mixed_bfloat16", 0.02)]


@pytest.fixture
def our_products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the kernels that were multiplied our way."""
    seen: list[tuple[int, ...]] = []
    for name in ("dense", "to_vocabulary"):
        multiply = getattr(kernels, name)

        def counting(x: Any, kernel: Any, *others: Any, _multiply: Any = multiply) -> Any:
            seen.append(tuple(sorted(kernel.shape)))
            return _multiply(x, kernel, *others)

        monkeypatch.setattr(kernels, name, counting)
    return seen


def multiplied_our_way(policy: str) -> bool:
    return runs_on_torch() or ("bfloat16" in policy and multiplies_bfloat16())


def without_torch_gradients() -> contextlib.AbstractContextManager[Any]:
    if not runs_on_torch():
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def layer_and_input(name: str, policy: str = "float32") -> tuple[keras.layers.Layer, Array]:
    make, shape = DENSE[name]
    layer = make()
    layer.dtype_policy = policy
    layer.build(shape)
    layer.set_weights([random_array(*w.shape, seed=i) for i, w in enumerate(layer.weights)])
    return layer, random_array(*shape, seed=9)


@pytest.mark.parametrize(("policy", "tolerance"), POLICIES)
@pytest.mark.parametrize("name", DENSE)
def test_the_same_numbers(
    name: str, policy: str, tolerance: float, our_products: list[Any]
) -> None:
    layer, x = layer_and_input(name, policy)
    with keras.device("cpu:0"), without_torch_gradients():
        expected, got = layer(x), project_floats(layer, x)
    assert got.dtype == expected.dtype and got.shape == expected.shape
    expected, got = (numbers(ops.cast(each, "float32")) for each in (expected, got))
    assert relative_difference(got, expected) < tolerance
    assert len(our_products) == (multiplied_our_way(policy) and name != "swapped")


@pytest.mark.parametrize(("policy", "tolerance"), POLICIES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("reverse_dtype", [None, "float32"])
@pytest.mark.parametrize("rows", [1, 3])
def test_logits(
    tied: bool, reverse_dtype: str | None, rows: int, policy: str, tolerance: float,
    our_products: list[Any],
) -> None:  # fmt: skip
    table = keras.layers.ReversibleEmbedding(
        11, 8, tie_weights=tied, reverse_dtype=reverse_dtype, dtype=policy
    )
    table.build((None, None))
    table.set_weights([random_array(*w.shape, seed=i) for i, w in enumerate(table.weights)])
    x = ops.cast(random_array(1, rows, 8, seed=9), table.compute_dtype)
    with keras.device("cpu:0"), without_torch_gradients():
        expected, got = table(x, reverse=True), floats_to_vocabulary(table, x)
    assert got.dtype == expected.dtype
    expected, got = (numbers(ops.cast(each, "float32")) for each in (expected, got))
    assert relative_difference(got, expected) < tolerance
    ours = runs_on_torch() or (multiplied_our_way(policy) and reverse_dtype is None)
    assert our_products == [(8, 11)] * (ours and "mixed" not in policy)


def test_soft_caps_and_lora_are_kept(our_products: list[Any]) -> None:
    x = random_array(1, 3, 8, seed=9)
    table = keras.layers.ReversibleEmbedding(11, 8, logit_soft_cap=0.5)
    table.build((None, None))
    dense, _ = layer_and_input("dense")
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(random_array(2, 6, seed=5))
    with keras.device("cpu:0"), without_torch_gradients():
        capped, expected = floats_to_vocabulary(table, x), table(x, reverse=True)
        np.testing.assert_array_equal(numbers(capped), numbers(expected))
        assert not our_products
        assert relative_difference(project_floats(dense, x), numbers(dense(x))) < 1e-6


def test_gradients_and_replaced_calls_go_through_the_layer(our_products: list[Any]) -> None:
    layer, x = layer_and_input("dense")
    project_floats(layer, ops.convert_to_tensor(x))  # trainable, and gradients are on
    seen = []
    layer.call = lambda inputs, _call=layer.call: seen.append("here") or _call(inputs)
    with without_torch_gradients():
        project_floats(layer, x)
    assert seen == ["here"] and not our_products


@pytest.mark.parametrize("name", ["dense", "row", "heads"])
def test_a_gelu_follows_whatever_the_layer_gives(name: str) -> None:
    layer, x = layer_and_input(name)
    with keras.device("cpu:0"), without_torch_gradients():
        expected = numbers(gelu(layer(x)))
        assert relative_difference(project_floats(layer, x, with_gelu=True), expected) < 1e-6
        assert relative_difference(project_with_gelu(layer, x), expected) < 1e-6
