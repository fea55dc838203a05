"""Stages that end by the clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.training import Stage, callbacks
from tests.training.test_stage import Kill, Noise, lines_of, network

pytestmark = pytest.mark.once


class Ticking:
    """A clock on which every step takes ten seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(callbacks, "monotonic", lambda: self.now)

    def step(self) -> keras.callbacks.Callback:
        class Tick(keras.callbacks.Callback):
            def on_train_batch_begin(callback, batch: int, logs: Any = None) -> None:
                self.now += 10.0

        return Tick()


def timed(ticking: Ticking, *more: keras.callbacks.Callback) -> Stage:
    return Stage(
        network(), Noise(), keras.optimizers.SGD(0.04), minutes=1.0, segment=2,
        compiling={"loss": "mse"}, callbacks=[ticking.step(), *more],
    )  # fmt: skip


def test_the_rate_falls_with_the_clock_which_ends_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = timed(Ticking(monkeypatch)).run(tmp_path)
    # the first step, which compiles, does not count
    assert (outcome.steps, outcome.seconds) == (7, 60.0)
    lines = lines_of(tmp_path)
    assert [line["step"] for line in lines] == [2, 4, 6, 7]
    seconds = np.array([0, 10, 30, 50])
    cosine = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * seconds / 60))
    expected = 0.04 * cosine * np.array([0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose([line["learning_rate"] for line in lines], expected, rtol=1e-4)


def test_a_resumed_stage_trains_as_long_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        timed(Ticking(monkeypatch), Kill(6)).run(tmp_path)
    outcome = timed(Ticking(monkeypatch)).run(tmp_path)
    # of 30 seconds that were saved on, again without the first step
    assert (outcome.steps, outcome.seconds) == (8, 60.0)
    rates = [line["learning_rate"] for line in lines_of(tmp_path)]
    assert len(rates) == 4 and rates[2] == pytest.approx(0.04 * 0.505 * 0.75, rel=1e-4)


def test_states_are_kept_so_many_seconds_apart_and_at_the_end(tmp_path: Path) -> None:
    model = network()
    model.compile("sgd", "mse")
    Stage(model, Noise(), steps=6, segment=1, save_seconds=1e6).run(tmp_path)
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-0000000000", "step-0000000006"]
    assert len(lines_of(tmp_path)) == 6
