"""Rates and decays of each variable: as Keras' AdamW where they are equal, as asked where not."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dl_techniques.errors import TrainingError
from dl_techniques.training.grouped_adam import GroupedAdamW


def trained(optimizer: keras.optimizers.Optimizer, batches: int = 4, size: int = 2) -> list:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    start = model.get_weights()
    model.compile(optimizer, "mse")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)).astype("float32"), rng.normal(size=(8, 1)).astype("float32")
    model.fit(x[: batches * size], y[: batches * size], batch_size=size, shuffle=False, verbose=0)
    return [now - before for now, before in zip(model.get_weights(), start, strict=True)]


def test_equal_groups_are_adamw() -> None:
    plain = keras.optimizers.AdamW(0.1, weight_decay=0.3, global_clipnorm=0.1)
    plain.exclude_from_weight_decay(var_names=["bias"])
    decays = [0.3, 0.0, 0.3, 0.0]
    own = GroupedAdamW(0.1, shares=[1] * 4, decays=decays, global_clipnorm=0.1)
    for left, right in zip(trained(plain), trained(own), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)


def test_each_variable_moves_by_its_share() -> None:
    whole = trained(GroupedAdamW(1e-3, shares=[1] * 4, decays=[0] * 4), batches=1)
    parts = trained(GroupedAdamW(1e-3, shares=[0, 0.5, 2, 1], decays=[0] * 4), batches=1)
    for moved, part, share in zip(whole, parts, (0, 0.5, 2, 1), strict=True):
        # weights near one are rounded to 6e-8, and each movement is a difference of two
        np.testing.assert_allclose(part, share * moved, atol=5e-7)


def test_decay_alone_moves_what_has_it() -> None:
    keras.utils.set_random_seed(3)
    dense = keras.layers.Dense(1, bias_initializer="ones")
    model = keras.Sequential([keras.Input((3,)), dense])
    start = model.get_weights()
    optimizer = GroupedAdamW(0.1, shares=[0.5, 1], decays=[0.4, 0])
    optimizer.build(model.trainable_variables)
    nothing = [keras.ops.zeros(v.shape) for v in model.trainable_variables]
    optimizer.apply(nothing, model.trainable_variables)
    np.testing.assert_allclose(model.get_weights()[0], start[0] * (1 - 0.1 * 0.5 * 0.4), rtol=1e-6)
    np.testing.assert_array_equal(model.get_weights()[1], start[1])


def test_gathered_batches_are_one_large_batch() -> None:
    settings = {"shares": [0.5, 1, 1, 2], "decays": [0.1, 0, 0, 0], "global_clipnorm": 0.05}
    many = GroupedAdamW(0.01, gradient_accumulation_steps=4, **settings)
    one = GroupedAdamW(0.01, **settings)
    for left, right in zip(trained(many, 4, 2), trained(one, 1, 8), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)


def test_wrong_numbers_of_groups() -> None:
    with pytest.raises(TrainingError, match="2 shares, 1 decays"):
        GroupedAdamW(shares=[1, 1], decays=[0])
    with pytest.raises(TrainingError, match="make the optimizer after freezing"):
        GroupedAdamW(shares=[1], decays=[0]).build([keras.Variable(0.0), keras.Variable(0.0)])
    config = GroupedAdamW(0.5, shares=[1, 2], decays=[0, 0]).get_config()
    assert GroupedAdamW.from_config(config).shares == [1, 2]
