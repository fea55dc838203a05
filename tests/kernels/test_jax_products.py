"""Products in bfloat16 on JAX's CPU: sums in float32, rounded once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from dl_techniques.compression.static_int8 import quantize_static
from dl_techniques.compression.weight_only import quantize_weights
from dl_techniques.kernels import jax_products, machine
from dl_techniques.kernels.jax_products import (
    jax_dense,
    jax_to_vocabulary,
    matmul_in_float32,
)
from dl_techniques.layers.activations import gelu
from dl_techniques.layers.convolution import Conv
from dl_techniques.layers.dense_float import floats_to_vocabulary, project_floats
from tests.helpers import Array, numbers, random_array, relative_difference
from tests.models.vision.fast_vlm.small_network import make_smaller_network, pictures

pytestmark = pytest.mark.skipif(keras.config.backend() != "jax", reason="JAX only")
HALF_STEP = 2.0**-8
"""Of a bfloat16 number, relative to it."""


@pytest.fixture(autouse=True)
def on_any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a processor with instructions for bfloat16: the same numbers on others, slower."""
    for module in (machine, jax_products):
        monkeypatch.setattr(module, "multiplies_bfloat16", lambda: True)


def half(*shape: int, seed: int = 7) -> tuple[Any, Array]:
    """bfloat16 tensor, and its numbers."""
    tensor = ops.cast(random_array(*shape, seed=seed), "bfloat16")
    return tensor, numbers(ops.cast(tensor, "float32")).astype("float64")


@pytest.mark.parametrize("outer", [(1,), (3,), (1, 1), (2, 3, 5)])
def test_sums_are_rounded_once(outer: tuple[int, ...]) -> None:
    (x, left), (kernel, right), (bias, shift) = half(*outer, 96), half(96, 7, seed=1), half(7)
    plain, exact = jax_dense(x, kernel), left @ right
    assert plain.dtype == "bfloat16" and plain.shape == (*outer, 7)
    assert (np.abs(numbers(plain) - exact) <= HALF_STEP * np.abs(exact) + 1e-5).all()
    both = numbers(jax_dense(x, kernel, bias, with_gelu=True))
    expected = numbers(gelu(ops.convert_to_tensor((exact + shift).astype("float32"))))
    assert (np.abs(both - expected) <= HALF_STEP * np.abs(expected) + 1e-4).all()


@pytest.mark.parametrize("outer", [(1, 1), (2, 3)])
def test_logits(outer: tuple[int, ...]) -> None:
    (x, left), (table, right) = half(*outer, 24), half(50, 24, seed=1)
    logits, exact = jax_to_vocabulary(x, table), left @ right.T
    assert logits.shape == (*outer, 50)
    assert (np.abs(numbers(logits) - exact) <= HALF_STEP * np.abs(exact) + 1e-5).all()
    embedding = keras.layers.ReversibleEmbedding(50, 24, dtype="bfloat16")
    embedding.build((None,))
    embedding.embeddings.assign(table)
    assert relative_difference(floats_to_vocabulary(embedding, x), exact) < 0.01


def test_layers_take_that_way_and_have_gradients() -> None:
    import jax

    x, _ = half(2, 4, 4, 24)
    dense = keras.layers.EinsumDense(
        "abcd,de->abce", (4, 4, 6), bias_axes="e", dtype="bfloat16", bias_initializer="ones"
    )
    conv = Conv(6, 1, dtype="bfloat16")
    for layer, call in ((dense, lambda x: project_floats(dense, x)), (conv, conv)):
        layer.build(x.shape)
        wide = type(layer).from_config({**layer.get_config(), "dtype": "float32"})
        wide.build(x.shape)
        wide.set_weights([np.asarray(w, "float32") for w in layer.get_weights()])
        assert relative_difference(call(x), wide(x)) < 0.01
        given = jax.grad(lambda x: ops.sum(ops.cast(call(x), "float32") ** 2))  # noqa: B023
        expected = jax.grad(lambda x: ops.sum(wide(x) ** 2))  # noqa: B023
        gradient = given(x)
        assert gradient.dtype == "bfloat16"
        assert relative_difference(gradient, expected(ops.cast(x, "float32"))) < 0.02
    text = str(jax.make_jaxpr(conv)(x))
    assert "preferred_element_type=float32" in text and "conv_general" not in text


def test_matmul_keeps_float32_sums_of_bfloat16_alone() -> None:
    (x, left), (y, right) = half(2, 3, 8), half(2, 8, 4, seed=1)
    product = matmul_in_float32(x, y)
    assert product.dtype == "float32" and relative_difference(product, left @ right) < 1e-5
    assert matmul_in_float32(ops.cast(x, "float16"), ops.cast(y, "float16")).dtype == "float16"


def test_a_network_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = make_smaller_network(dtype="bfloat16"), pictures(2)
    network.reparameterize(fold=True)
    multiplied = numbers(network(x))
    for module in (machine, jax_products):
        monkeypatch.setattr(module, "multiplies_bfloat16", lambda: False)
    assert 0 < relative_difference(multiplied, network(x)) < 0.05


@pytest.mark.parametrize("static", [False, True])
def test_products_of_quantized_networks(static: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    network, x = make_smaller_network(dtype="bfloat16"), pictures(2)
    if static:
        quantize_static(network, x)
    else:
        quantize_weights(network)
    multiplied = numbers(network(x))
    widened = [
        line
        for line in str(jax.make_jaxpr(network)(x)).splitlines()
        if "dot_general[" in line and "bf16[" in line.split("dot_general[")[0]
    ]
    assert not widened, "a product's sums were rounded to bfloat16"
    for module in (machine, jax_products):
        monkeypatch.setattr(module, "multiplies_bfloat16", lambda: False)
    assert 0 < relative_difference(multiplied, network(x)) < 0.05


def test_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    texts = (("flags : avx2 avx512_bf16 fma", True), ("flags : avx2 fma", False))
    for i, (text, known) in enumerate(texts):
        (tmp_path / f"cpuinfo{i}").write_text(text)
        monkeypatch.setattr(machine, "CPU_FLAGS", tmp_path / f"cpuinfo{i}")
        assert machine.multiplies_bfloat16() is known
    monkeypatch.setattr(machine, "CPU_FLAGS", tmp_path / "absent")
    assert machine.multiplies_bfloat16() is False
