"""Random initializers are silent while a preset is loaded, and speak again afterwards."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dl_techniques.cli.quick_load import RANDOM, without_random_weights


def kernel(initializer: str = "glorot_uniform", dtype: str = "float32") -> np.ndarray:
    layer = keras.layers.Dense(4, kernel_initializer=initializer, dtype=dtype)
    layer.build((None, 3))
    return np.asarray(keras.ops.convert_to_numpy(layer.kernel)).astype("float32")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_zeros_inside_random_outside(dtype: str) -> None:
    with without_random_weights():
        for name in ("glorot_uniform", "he_normal", "random_normal", "truncated_normal"):
            assert not kernel(name, dtype).any()
        assert (kernel("ones", dtype) == 1).all()
    assert kernel(dtype=dtype).any()


def test_restored_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), without_random_weights():
        raise ZeroDivisionError
    assert all(getattr(keras.initializers, name)()((2, 2)) is not None for name in RANDOM)
    assert kernel("random_uniform").any()


def test_a_loaded_model_is_the_saved_one(tiny_preset: str) -> None:
    from dl_techniques import FastVLMCausalLM

    expected = FastVLMCausalLM.from_preset(tiny_preset)
    with without_random_weights():
        loaded = FastVLMCausalLM.from_preset(tiny_preset)
    assert len(loaded.weights) == len(expected.weights)
    for one, other in zip(loaded.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(one), keras.ops.convert_to_numpy(other), one.path
        )
