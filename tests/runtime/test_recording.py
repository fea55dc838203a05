"""Recorded functions give what the functions give, and forget when variables are others."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques import FastVLMCausalLM
from dl_techniques.runtime import compile
from dl_techniques.runtime.recording import CALLS_OF_PREDICT, Recording, recorded_predictions
from tests.helpers import numbers, random_array, relative_difference, shake
from tests.models.vision.fast_vlm.small_network import make_smaller_network, pictures

on_torch = pytest.mark.skipif(keras.config.backend() != "torch", reason="PyTorch only")


def often(network: Any, x: Any, calls: int = CALLS_OF_PREDICT + 2) -> Any:
    """The last of so many predictions."""
    for _ in range(calls):
        outputs = network.predict_on_batch(x)
    return outputs


@pytest.mark.skipif(keras.config.backend() == "torch", reason="PyTorch records")
def test_other_backends_keep_their_function() -> None:
    network, function = make_smaller_network(), object()
    assert recorded_predictions(network, function) is function


@on_torch
def test_predictions_are_recorded_and_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = make_smaller_network(), pictures()
    runs: list[int] = []
    step = type(network).predict_step
    monkeypatch.setattr(
        type(network), "predict_step", lambda self, data: runs.append(1) or step(self, data)
    )
    expected = network.predict_on_batch(x)
    np.testing.assert_array_equal(often(network, x), expected)
    assert len(runs) == CALLS_OF_PREDICT + 1  # the last one recorded
    shake(network)
    shaken = often(network, x, 1)
    assert relative_difference(shaken, expected) > 1e-3
    assert relative_difference(shaken, network(x)) < 1e-6
    assert len(runs) == CALLS_OF_PREDICT + 1
    network.predict_on_batch(x[:1])  # another shape
    assert len(runs) == CALLS_OF_PREDICT + 2


@on_torch
def test_a_recording_ends_with_its_variables() -> None:
    network, x = make_smaller_network(), pictures()
    expected = often(network, x)
    for change in (network.reparameterize, lambda: network.reparameterize(fold=True)):
        change()
        assert relative_difference(often(network, x), expected) < 1e-5
    network.reset_reparameterization()
    shake(network)
    assert relative_difference(often(network, x), network(x)) < 1e-6


@on_torch
def test_predict_over_many_batches() -> None:
    network, x = make_smaller_network(), random_array(23, 32, 32, 3)
    assert relative_difference(network.predict(x, batch_size=2, verbose=0), network(x)) < 1e-5


@on_torch
def test_who_wants_it_eager_gets_it_eager() -> None:
    network = make_smaller_network()
    network.compile(run_eagerly=True)
    network.make_predict_function()
    assert not isinstance(network.predict_function, Recording)


@on_torch
def test_integers_and_other_variables() -> None:
    held = [keras.Variable(1.0)]
    runs: list[int] = []

    def function(x: Any, n: Any) -> Any:
        runs.append(1)
        return x * held[0].value + n

    recording = Recording(function, 1, lambda: held)
    x = np.float32([1, 2])
    assert [numbers(recording(x, n)).tolist() for n in (0, 1, 2)] == [[1, 2], [2, 3], [3, 4]]
    assert len(runs) == 2
    held[0] = keras.Variable(10.0)
    assert [numbers(recording(x, n)).tolist() for n in (0, 1, 2)] == [[10, 20], [11, 21], [12, 22]]
    assert len(runs) == 4


@on_torch
def test_methods_are_recorded() -> None:
    class Scale:
        def __init__(self) -> None:
            self.runs = 0

        def times_three(self, x: Any) -> Any:
            self.runs += 1
            return 3 * x

    scale, x = Scale(), random_array(2, 5)
    recording = Recording(scale.times_three, calls=1)
    for _ in range(4):
        np.testing.assert_array_equal(recording(x), 3 * x)
    assert scale.runs == 2  # once as it is, once while it was recorded


@on_torch
def test_a_process_may_encode_any_number_of_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile, "CALLS_BEFORE_RECORDING", 1)
    model = FastVLMCausalLM.from_preset("demo")
    images = random_array(1, 1, *model.backbone.image_size, 3)
    rows = [keras.ops.convert_to_numpy(model.encode_images(images)) for _ in range(4)]
    for later in rows[1:]:
        np.testing.assert_array_equal(later, rows[0])
