"""A stage on its way: restore, fit in segments, save, leave the finished weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import keras

from dl_techniques.errors import TrainingError
from dl_techniques.training.batches import Repeated, Segment, drawn_ahead
from dl_techniques.training.callbacks import (
    AfterSegment,
    Clock,
    Deadline,
    Place,
    StatefulCallback,
)
from dl_techniques.training.random_state import RandomState
from dl_techniques.training.state import (
    MetricsLog,
    Position,
    keep_state,
    read_state,
    saved_states,
    write_state,
)

FINISHED, METRICS = "finished", "metrics.jsonl"
ENDLESS = 1_000_000_000
"""Segments of a stage that the clock ends."""


@dataclass(frozen=True)
class Outcome:
    """What a stage did.

    Attributes:
        steps: batches that were learned from, earlier runs included.
        seconds: of training, earlier runs included.
        metrics: of the last segment.
    """

    steps: int
    seconds: float
    metrics: Mapping[str, float]


class Run:
    """A stage on its way, from a restored state to the last step.

    Args:
        stage: a `Stage`, whose file imports this one.
        folder: of the states; None keeps nothing.
    """

    def __init__(self, stage: Any, folder: Path | None) -> None:
        self.stage, self.folder, self.model = stage, folder, stage.model
        self.log = MetricsLog(None if folder is None else folder / METRICS)
        self.callbacks = [*stage.callbacks, RandomState()]
        self.stateful = [c for c in self.callbacks if isinstance(c, StatefulCallback)]
        self.saved_at = monotonic()
        self.line: dict[str, Any] = {}

    def run(self) -> Outcome:
        """Restores, trains, leaves the finished weights."""
        self._build()
        position = self._restore()
        with self._batches() as ahead:
            passes = self.stage.passes
            batches = ahead if passes == 1 else Repeated(ahead, passes)
            self.data = Segment(batches, self.stage.segment_length, self.stage.data)
            self.place = Place(self.data, self.stage.steps, position.step)
            self.clock = Clock(position.seconds)
            if not self._is_done():
                try:
                    self._fit()
                except Exception as error:
                    if ahead.failure is None or error is ahead.failure:
                        raise
                    raise ahead.failure from error
        self._finish()
        return Outcome(self.place.step, self.clock.seconds(), self.line)

    def _build(self) -> None:
        """Creates every variable of the state, so that it can be restored."""
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        for callback in self.stateful:
            callback.build(self.model)

    def _state(self) -> list[keras.Variable]:
        own = [variable for callback in self.stateful for variable in callback.variables]
        return [*self.stage.weights, *self.model.optimizer.variables, *own]

    def _restore(self) -> Position:
        """The last state, or the first one, which is written."""
        position = Position(settings=self.stage.all_settings)
        if self.folder is None:
            return position
        if states := saved_states(self.folder):
            self.stage.check(states[-1])
            position = read_state(states[-1], self._state())
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            keep_state(self.folder, self._state(), position)
        self.log.cut(position.step)
        self.line = (self.log.lines() or [{}])[-1]
        return position

    def _batches(self) -> Any:
        stage = self.stage
        options = {"threads": stage.threads, "processes": stage.processes}
        return drawn_ahead(stage.data, preload=stage.preload, **options)

    def _is_done(self) -> bool:
        stage = self.stage
        if stage.steps is not None:
            return self.place.step >= stage.steps
        return self.clock.seconds() >= 60 * (stage.minutes or 0.0)

    def _fit(self) -> None:
        stage, first = self.stage, self.place.step // self.stage.segment_length
        callbacks: list[keras.callbacks.Callback] = [self.place, self.clock]
        last = ENDLESS
        if stage.steps is not None:
            last = -(-stage.steps // stage.segment_length)
        elif stage.minutes is not None and stage.peak is not None:
            callbacks.append(Deadline(self.clock, stage.peak, stage.minutes, stage.warmup))
        self.model.fit(
            self.data,
            initial_epoch=first,
            epochs=last,
            callbacks=[*callbacks, *self.callbacks, AfterSegment(self._after_segment)],
            validation_data=stage.validation,
            shuffle=False,
            verbose=stage.verbose,
        )

    def _after_segment(self, segment: int, metrics: dict[str, float]) -> None:
        """A line, then a state: lines without their state are cut when the run goes on."""
        step, seconds = self.place.step, self.clock.seconds()
        if not abs(metrics.get("loss", 0.0)) < float("inf"):
            raise TrainingError(
                f"the loss became {metrics['loss']} by step {step}: lower the learning rate"
            )
        self.line = {"step": step, "seconds": round(seconds, 3), **metrics, **self._rate()}
        self.log.append(self.line)
        due = monotonic() - self.saved_at >= self.stage.save_seconds
        if self.folder is not None and (due or self._is_done()):
            position = Position(step, seconds, self.stage.all_settings)
            keep_state(self.folder, self._state(), position)
            self.saved_at = monotonic()

    def _rate(self) -> dict[str, float]:
        """The rate of the next step; optimizers with one for each group tell none."""
        optimizer = self.model.optimizer
        if isinstance(optimizer, keras.optimizers.MultiOptimizer):
            return {}
        return {"learning_rate": float(keras.ops.convert_to_numpy(optimizer.learning_rate))}

    def _finish(self) -> None:
        """Averages take the weights' place, as `fit` does it at its end; once more is the same."""
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        for callback in self.stateful:
            callback.finish(self.model)
        if self.folder is not None:
            position = Position(self.place.step, self.clock.seconds(), self.stage.all_settings)
            write_state(self.folder / FINISHED, self.stage.weights, position)
