"""Two networks of one kind in one model: every step has the gradients of that step alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques import MobileOne
from dl_techniques.compression.distillation import distiller
from tests.helpers import randomize
from tests.models.vision.fast_vlm.small_network import make_smaller_network, pictures


def tower(name: str) -> Any:
    """A small FastVLM without its classifier."""
    return make_smaller_network(include_top=False, name=name)


def mobile_tower(name: str) -> Any:
    """A small MobileOne without its classifier."""
    shape = {"input_shape": (32, 32, 3), "include_top": False}
    network = MobileOne(4, (8, 8), (1, 1), 8, name=name, **shape)
    randomize(network)
    return network


def two_towers(make: Callable[[str], Any]) -> tuple[keras.Model, Any, Any]:
    """A functional model of two networks whose layers have the same names."""
    first, second = make("first"), make("second")
    image = keras.Input((32, 32, 3))
    joined = keras.layers.Concatenate()([first(image), second(image)])
    pooled = keras.layers.GlobalAveragePooling2D()(joined)
    return keras.Model(image, keras.layers.Dense(3)(pooled)), first, second


def gradients(network: Any) -> np.ndarray:
    """All that PyTorch holds for a network, as one vector."""
    known = [v.value.grad for v in network.trainable_variables if v.value.grad is not None]
    return np.concatenate([gradient.cpu().numpy().ravel() for gradient in known])


@pytest.mark.parametrize("make", [tower, mobile_tower])
def test_two_towers_have_paths_of_their_own(make: Callable[[str], Any]) -> None:
    """In every form, and from their configs too."""
    model, first, second = two_towers(make)
    assert len({v.path for v in model.variables}) == len(model.variables)
    first.reparameterize(fold=True)
    second.reparameterize()
    assert len({v.path for v in model.variables}) == len(model.variables)
    again = type(first).from_config(first.get_config())
    assert [v.path for v in again.variables] == [v.path for v in first.variables]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only there gradients are kept")
@pytest.mark.parametrize("make", [tower, mobile_tower])
def test_gradients_of_two_towers_are_those_of_one_step(make: Callable[[str], Any]) -> None:
    model, *towers = two_towers(make)
    for network in towers:
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False  # the same numbers in every step
    model.compile(keras.optimizers.SGD(0.0), "mse")
    found = []
    for _ in range(2):
        model.fit(pictures(), np.ones((2, 3), "float32"), verbose=0)
        found.append([gradients(network) for network in towers])
    for once, twice in zip(*found, strict=True):
        np.testing.assert_allclose(once, twice, rtol=1e-3, atol=1e-3 * np.abs(once).max())


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only there gradients are kept")
def test_gradients_of_a_student_beside_its_namesake_are_those_of_one_step() -> None:
    student, teacher = make_smaller_network(name="same"), make_smaller_network(name="same")
    pair = distiller(student, teacher)
    pair.compile(
        keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    found = []
    for _ in range(2):
        pair.fit(pictures(), np.arange(2), verbose=0)
        found.append(gradients(student))
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-3 * np.abs(found[0]).max())
