"""The encoder's table: forms take turns at every size, and growth is read from it."""

from __future__ import annotations

import time
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.errors import DLTechniquesError
from dl_techniques.evaluation.speed_encoder import (
    EncoderTime,
    encoder_times,
    forms_of,
    growth,
    growth_exponent,
    runs_of,
)
from tests.models.vision.fast_vlm.small_network import make_smaller_network

pytestmark = pytest.mark.once


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.07, 2.0])
def test_exponent_of_exact_powers(exponent: float) -> None:
    pixels = [side**2 for side in (256, 512, 1024, 1536)]
    seconds = [3e-7 * p**exponent for p in pixels]
    assert growth_exponent(pixels, seconds) == pytest.approx(exponent, abs=1e-12)


def test_exponent_is_that_of_numpys_line() -> None:
    rng = np.random.default_rng(3)
    pixels = [4.0, 9.0, 100.0, 2500.0]
    seconds = (rng.uniform(0.5, 2, 4) * pixels).tolist()
    expected = np.polyfit(np.log(pixels), np.log(seconds), 1)[0]
    assert growth_exponent(pixels, seconds) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("pixels", [[], [16], [16, 16]])
def test_one_size_has_no_growth(pixels: list[float]) -> None:
    with pytest.raises(ValueError, match="two different sizes"):
        growth_exponent(pixels, [1.0] * len(pixels))


def test_growth_for_each_form_and_batch() -> None:
    cells = [EncoderTime("fused", side, 1, side**3, 1.0) for side in (16, 32)]
    cells += [EncoderTime("fused", 16, 8, 1.0, 1.0)]
    assert growth(cells) == {("fused", 1): pytest.approx(1.5)}


class Sleeper:
    """A network that takes a known time for each picture."""

    def __init__(self, form: str, resolution: int, log: list[Any]) -> None:
        self.form, self.resolution, self.log = form, resolution, log

    def predict_on_batch(self, pictures: Any) -> None:
        self.log.append((self.form, pictures.shape[:2]))
        time.sleep(0.004 * len(pictures))


def test_forms_take_turns() -> None:
    log: list[Any] = []
    runs: list[int] = []
    times = encoder_times(
        lambda form, size: Sleeper(form, size, log), [4, 8], [1, 2], 2, on_run=runs.append
    )
    names = ["branched", "fused", "folded"]
    assert [form for form, _ in log] == names * 12
    assert len(runs) == runs_of([4, 8], [1, 2], 2) == 36
    assert [(c.resolution, c.batch_size, c.form) for c in times] == [
        (size, batch, form) for size in (4, 8) for batch in (1, 2) for form in names
    ]
    assert all(c.seconds >= c.fastest >= 0.004 * c.batch_size for c in times)
    with pytest.raises(ValueError, match="at least one"):
        encoder_times(lambda form, size: Sleeper(form, size, log), [4], [1], 0)


def test_networks_of_every_form_and_size() -> None:
    network = make_smaller_network(include_top=False, dtype="mixed_bfloat16")
    make = forms_of(network)
    made = {form: make(form, 48) for form in ("branched", "fused", "folded")}
    assert [n.reparameterized for n in made.values()] == [False, True, True]
    assert [n.folded for n in made.values()] == [False, False, True]
    assert {n.input_shape for n in made.values()} == {(None, 48, 48, 3)}
    assert {n.dtype_policy.name for n in made.values()} == {"mixed_bfloat16"}
    assert network.input_shape == (None, 32, 32, 3) and not network.reparameterized


def test_a_network_without_forms_is_told() -> None:
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="plain")
    with pytest.raises(DLTechniquesError, match="plain is a Sequential"):
        forms_of(plain)


def test_a_network_is_really_run() -> None:
    make = forms_of(make_smaller_network(include_top=False))
    (cell,) = encoder_times(make, [32], [1], 1, forms=["folded"])
    assert cell.form == "folded" and cell.seconds > 0
