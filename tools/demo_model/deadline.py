"""Training that ends by the clock, for machines that are lent for so many minutes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import keras

LAST = 0.01  # share of the peak that the rate falls to
ENDLESS = 1_000_000  # epochs: the clock ends the training


class Deadline(keras.callbacks.Callback):
    """Ends `fit` after some minutes; the rate falls along a cosine of the time that has passed.

    It changes from epoch to epoch, so epochs should be short. The clock starts after the first
    one, which compiles and is trained at a small rate.

    Args:
        peak: of the learning rate.
        minutes: of training.
        warmup: epochs in which the rate rises.
    """

    def __init__(self, peak: float, minutes: float, warmup: int = 4) -> None:
        super().__init__()
        self.peak, self.seconds, self.warmup = peak, 60 * minutes, warmup
        self.start: float | None = None

    def passed(self) -> float:
        """Share of the time, 0 to 1."""
        if self.start is None:
            return 0.0
        return min((monotonic() - self.start) / self.seconds, 1.0)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Sets the rate of the epoch."""
        cosine = LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * self.passed()))
        self.model.optimizer.learning_rate = self.peak * cosine * min(1, (epoch + 1) / self.warmup)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Starts the clock, or ends the training."""
        if self.start is None:
            self.start = monotonic()
        if self.passed() >= 1:
            self.model.stop_training = True


def stage_callbacks(folder: Path, rate: float, minutes: float | None) -> list[Any]:
    """A stage's log, and its backups or, where it ends by the clock, the `Deadline`.

    Args:
        folder: of the stage.
        rate: peak of the learning rate.
        minutes: of training; None for a stage of so many epochs.
    """
    log = keras.callbacks.CSVLogger(folder / "log.csv", append=True)
    if minutes is not None:
        return [log, Deadline(rate, minutes)]
    return [keras.callbacks.BackupAndRestore(folder / "backup", delete_checkpoint=False), log]
