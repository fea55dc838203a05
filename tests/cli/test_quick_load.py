"""Initializers do without the device while a preset is loaded, and are themselves afterwards."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dl_techniques.layers.initializers import HostTruncatedNormal
from dl_techniques.runtime.quick_load import RANDOM, loaded_on_the_host


def values(variable: keras.Variable) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable)).astype("float32")


def kernel(initializer: object = "glorot_uniform", dtype: str = "float32") -> np.ndarray:
    layer = keras.layers.Dense(4, kernel_initializer=initializer, dtype=dtype)
    layer.build((None, 3))
    return values(layer.kernel)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_zeros_inside_random_outside(dtype: str) -> None:
    with loaded_on_the_host():
        for name in ("glorot_uniform", "he_normal", "random_normal", "truncated_normal"):
            assert not kernel(name, dtype).any()
        assert not kernel(HostTruncatedNormal(), dtype).any()
    assert kernel(dtype=dtype).any()
    assert kernel(HostTruncatedNormal(), dtype).any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "bool"])
def test_constants_are_what_they_are(dtype: str) -> None:
    kinds = [keras.initializers.Zeros(), keras.initializers.Ones(), keras.initializers.Constant(3)]
    for kind in kinds:
        expected = keras.Variable(kind, (2, 3), dtype, trainable=False)
        with loaded_on_the_host():
            made = keras.Variable(kind, (2, 3), dtype, trainable=False)
        assert made.dtype == dtype
        assert keras.backend.standardize_dtype(made.value.dtype) == dtype
        for one, other in zip(values(made).flat, values(expected).flat, strict=True):
            assert one == other


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_what_is_assigned_arrives(dtype: str) -> None:
    stored = np.array([[0.1, 2.5, -3.0]], "float16")
    made = {"dtype": dtype, "trainable": False}
    expected, variable = (keras.Variable(np.zeros((1, 3)), **made) for _ in range(2))
    expected.assign(stored)
    assign = keras.Variable.assign
    with loaded_on_the_host():
        variable.assign(stored)
        with pytest.raises(ValueError, match="shape"):
            variable.assign(stored[0])
    assert keras.Variable.assign is assign
    assert keras.backend.standardize_dtype(variable.value.dtype) == dtype
    np.testing.assert_array_equal(values(variable), values(expected))


def test_restored_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), loaded_on_the_host():
        raise ZeroDivisionError
    assert all(getattr(keras.initializers, name)()((2, 2)) is not None for name in RANDOM)
    assert kernel("random_uniform").any()


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="programs are JAX's")
def test_jax_compiles_nothing_for_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    from jax._src import compiler

    compiled = []
    compile_one = compiler.compile_or_get_cached

    def counted(*arguments: object, **options: object) -> object:
        compiled.append(arguments)
        return compile_one(*arguments, **options)

    monkeypatch.setattr(compiler, "compile_or_get_cached", counted)

    def fill(side: int) -> None:
        for name in ("zeros", "ones", "he_normal", keras.initializers.Constant(0.1)):
            variable = keras.Variable(keras.initializers.get(name), (side, 3), "float32")
            variable.assign(np.ones((side, 3), "float16"))

    with loaded_on_the_host():
        fill(side=37)
    assert not compiled
    fill(side=41)  # shapes that no other test has
    assert compiled


def test_a_loaded_model_is_the_saved_one(tiny_preset: str) -> None:
    from dl_techniques import FastVLMCausalLM

    expected = FastVLMCausalLM.from_preset(tiny_preset)
    with loaded_on_the_host():
        loaded = FastVLMCausalLM.from_preset(tiny_preset)
    assert len(loaded.weights) == len(expected.weights)
    for one, other in zip(loaded.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other), one.path
        )
