"""Initial weights drawn on the host."""

from __future__ import annotations

import keras
import numpy as np

from dl_techniques.layers.initializers import HostTruncatedNormal
from tests.helpers import numbers


def test_spread_and_cut() -> None:
    drawn = numbers(HostTruncatedNormal(0.5, seed=1)((100, 200)))
    assert np.abs(drawn).max() <= 1.0
    # A normal cut at two deviations keeps 0.8796 of its deviation.
    assert abs(drawn.std() - 0.5 * 0.8796) < 0.01
    assert abs(drawn.mean()) < 0.01


def test_a_seed_repeats_and_its_absence_does_not() -> None:
    fixed, free = HostTruncatedNormal(seed=3), HostTruncatedNormal()
    np.testing.assert_array_equal(numbers(fixed((4, 5))), numbers(fixed((4, 5))))
    assert (numbers(free((4, 5))) != numbers(free((4, 5)))).any()


def test_keras_seed_repeats_whole_layers() -> None:
    drawn = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        drawn.append(numbers(HostTruncatedNormal()((6,))))
    np.testing.assert_array_equal(*drawn)


def test_dtype_and_config() -> None:
    initializer = HostTruncatedNormal(0.1, seed=2)
    half = initializer((3,), dtype="bfloat16")
    assert keras.backend.standardize_dtype(half.dtype) == "bfloat16"
    document = keras.saving.serialize_keras_object(initializer)
    copy = keras.saving.deserialize_keras_object(document)
    np.testing.assert_array_equal(numbers(copy((3, 2))), numbers(initializer((3, 2))))
