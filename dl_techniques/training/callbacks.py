"""What a stage does between steps: set the place, watch the clock, average, log, save."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

import keras
from keras import ops

from dl_techniques.training.batches import Segment

LAST = 0.01
"""Share of the peak that the rate of a stage that ends by the clock falls to."""
Logs = Mapping[str, Any] | None


class StatefulCallback(keras.callbacks.Callback):
    """A callback whose variables belong to the state of a training.

    A `Stage` calls `build` before it restores, and `finish` after the last step.
    """

    def build(self, model: keras.Model) -> None:
        """Creates the variables."""

    @property
    def variables(self) -> Sequence[keras.Variable]:
        """What is saved and restored, in an order that stays."""
        return ()

    def finish(self, model: keras.Model) -> None:
        """Leaves the model as it is to be used."""


class WeightAverage(StatefulCallback):
    """Keeps a moving average of the weights; the trained model gets it at the end.

    It moves once for each update, however many batches an update gathers gradients from (Keras'
    own `use_ema` moves with every batch). Without gathered gradients `use_ema` is the faster one.

    Args:
        momentum: share of the average that stays at each update.

    Example:
        >>> Stage(model, data, "adamw", callbacks=[WeightAverage(0.99)])  # doctest: +SKIP
    """

    def __init__(self, momentum: float = 0.99) -> None:
        super().__init__()
        self.momentum = momentum
        self._averages: list[keras.Variable] = []
        self._steps, self._every = 0, 1

    def build(self, model: keras.Model) -> None:
        """Creates an average of each trainable variable."""
        self._averages = [
            keras.Variable("zeros", v.shape, v.dtype, trainable=False, name="average")
            for v in model.trainable_variables
        ]
        self._every = getattr(model.optimizer, "gradient_accumulation_steps", None) or 1
        self._count = keras.Variable(0, dtype="int32", trainable=False, name="count")

    @property
    def variables(self) -> Sequence[keras.Variable]:
        """The averages, and the number of batches."""
        return [*self._averages, self._count]

    def on_train_begin(self, logs: Logs = None) -> None:
        """Counts on from what was restored."""
        self._steps = int(ops.convert_to_numpy(self._count.value))

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Moves the averages, if the batch ended an update."""
        self._steps += 1
        if self._steps % self._every == 0:
            momentum = self.momentum if self._steps > self._every else 0.0
            # `self.model` brings the variables up to date on JAX
            for average, variable in zip(
                self._averages, self.model.trainable_variables, strict=True
            ):
                average.assign(momentum * average.value + (1 - momentum) * variable.value)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Notes the number of batches, before the state is saved."""
        self._count.assign(self._steps)

    def finish(self, model: keras.Model) -> None:
        """Gives the model the averages."""
        if int(ops.convert_to_numpy(self._count.value)) >= self._every:
            for average, variable in zip(self._averages, model.trainable_variables, strict=True):
                variable.assign(average.value)


class Place(keras.callbacks.Callback):
    """Tells the data their segment, counts steps, and ends `fit` after the last one.

    Args:
        data: what `fit` reads.
        steps: of the whole stage; None if the clock ends it.
        step: that a resumed run begins with.
    """

    def __init__(self, data: Segment, steps: int | None, step: int = 0) -> None:
        super().__init__()
        self.data, self.steps, self.step = data, steps, step
        self.begun = monotonic()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """The next segment begins where the last one ended."""
        self.data.first = self.step
        self.data.waited, self.begun = 0.0, monotonic()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """One step more."""
        self.step += 1
        if self.step == self.steps:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Tells the share of time that was waited for batches, to the callbacks that follow."""
        if isinstance(logs, dict):
            waited = self.data.waited / max(monotonic() - self.begun, 1e-9)
            logs["waiting"] = round(min(waited, 1.0), 4)


class Clock(keras.callbacks.Callback):
    """Time of training; what the first step compiles does not count.

    Args:
        seconds: that earlier runs have trained.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.before = seconds
        self.start: float | None = None

    def seconds(self) -> float:
        """Of training so far, earlier runs included."""
        return self.before + (0.0 if self.start is None else monotonic() - self.start)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Starts after the first step."""
        if self.start is None:
            self.start = monotonic()


class Deadline(keras.callbacks.Callback):
    """Ends a stage by the clock; the rate falls along a cosine of the time that has passed.

    It changes from segment to segment, so these should be short.

    Args:
        clock: of the stage; it stands before this callback.
        peak: of the learning rate.
        minutes: of training.
        warmup: segments in which the rate rises.
    """

    def __init__(self, clock: Clock, peak: float, minutes: float, warmup: int = 4) -> None:
        super().__init__()
        self.clock, self.peak, self.limit, self.warmup = clock, peak, 60 * minutes, warmup

    def passed(self) -> float:
        """Share of the time, 0 to 1."""
        return min(self.clock.seconds() / self.limit, 1.0)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Sets the rate of the segment."""
        cosine = LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * self.passed()))
        self.model.optimizer.learning_rate = self.peak * cosine * min(1, (epoch + 1) / self.warmup)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Ends the stage."""
        if self.clock.start is not None and self.passed() >= 1:
            self.model.stop_training = True


class AfterSegment(keras.callbacks.Callback):
    """Calls a function after each segment, with its number and its metrics.

    Args:
        function: what to do; it stands behind the user's callbacks, so that it sees their work.
    """

    def __init__(self, function: Callable[[int, dict[str, float]], None]) -> None:
        super().__init__()
        self.function = function

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Metrics become plain numbers."""
        self.function(epoch, {name: float(value) for name, value in (logs or {}).items()})
