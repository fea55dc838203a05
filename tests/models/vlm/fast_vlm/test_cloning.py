"""Copies of models: which ways there are, and what `keras.models.clone_model` does."""

from __future__ import annotations

import copy

import keras
import numpy as np
import pytest

from dl_techniques import FastVLMCausalLM
from dl_techniques.errors import DLTechniquesError
from tests.helpers import numbers
from tests.models.vision.fast_vlm.small_network import make_smaller_network
from tests.models.vision.fast_vlm.small_network import pictures as arrays
from tests.models.vlm.fast_vlm.small_model import make_backbone, make_model, random_inputs


@pytest.fixture
def inputs(rng: np.random.Generator) -> dict:
    """Two prompts, one picture each."""
    return random_inputs(rng, [9, 7], [1, 1])


@pytest.mark.parametrize("compiled", [True, False])
def test_a_whole_model_is_not_cloned_in_silence(compiled: bool) -> None:
    """Its embedding table would become two."""
    model = FastVLMCausalLM(make_backbone(), compile=compiled, name="whole")
    with pytest.raises(DLTechniquesError, match="cannot clone whole.*copy.deepcopy"):
        keras.models.clone_model(model)


def test_the_ways_that_are_named_work(inputs: dict) -> None:
    model = make_model()
    expected = numbers(model(inputs))
    whole = copy.deepcopy(model)
    new = type(model).from_config(model.get_config())
    np.testing.assert_allclose(numbers(whole(inputs)), expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(numbers(new(inputs)), expected, atol=1e-3)
    new.set_weights(model.get_weights())
    np.testing.assert_allclose(numbers(new(inputs)), expected, rtol=1e-5, atol=1e-5)


def test_backbones_are_not_cloned_in_silence() -> None:
    """The copy's weights would stand in another order on JAX."""
    with pytest.raises(DLTechniquesError, match="cannot clone .*FastVLMBackbone.*copy.deepcopy"):
        keras.models.clone_model(make_backbone())


def test_vision_networks_are_cloned() -> None:
    """As plain functional models that compute the same."""
    network, x = make_smaller_network(), arrays()
    network.stem.trainable = False
    clone = keras.models.clone_model(network)
    clone.set_weights(network.get_weights())
    np.testing.assert_allclose(numbers(clone(x)), numbers(network(x)), rtol=1e-5, atol=1e-5)
    assert len(clone.trainable_variables) == len(network.trainable_variables)
