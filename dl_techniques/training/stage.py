"""One stage of training, through `fit`, that goes on exactly where a killed run was.

    FOLDER/step-0000000040/    the whole state; the last two are kept
    FOLDER/metrics.jsonl       a line for each segment
    FOLDER/finished/           the trained weights, once the stage is done

A segment is one epoch of `fit`: so many steps, then a line and a state. All that the next step
depends on is in the state (weights, statistics, seeds, optimizer) or a function of the place (the
batches), so a run that was killed at any step and started again ends at the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from dl_techniques.errors import TrainingError
from dl_techniques.training.batches import Batches
from dl_techniques.training.running import FINISHED, METRICS, Outcome, Run
from dl_techniques.training.state import MetricsLog, read_position, read_state, saved_states


@dataclass
class Stage:
    """Trains a model for so many steps or minutes; `run(folder)` goes on after a kill.

    Callbacks that keep something for later steps have to be `StatefulCallback`s, or a resumed run
    is another one. With minutes the rate depends on the clock, so a resumed run is not the same
    to the bit; it trains as long in all.

    Args:
        model: built; its `trainable` flags say what learns.
        data: batches by place.
        optimizer: with which the model is compiled; None for a model that is compiled already.
        steps: batches to learn from. Either these or `minutes`.
        minutes: of training; the optimizer's rate is the peak of a cosine over this time.
        callbacks: of `fit`.
        compiling: further arguments of `compile`, such as `loss`.
        segment: steps between two states, and between two rates of a stage that ends by the
            clock. Defaults to an epoch of the data.
        warmup: segments in which the rate of a stage that ends by the clock rises.
        save_seconds: least time between two states, for large models with short segments.
        frozen: layers that do not learn and need not be written: whoever goes on makes the model
            with the same weights in them.
        unchanged: variables that do not learn and need not be written, as `frozen`; for layers of
            which a part learns.
        validation: data of `fit`'s `validation_data`, measured after each segment.
        threads: that make batches ahead.
        processes: that make them instead, see `DrawnAhead`.
        preload: modules for these processes.
        passes: how often each batch is given, see `Repeated`.
        settings: plain values that have to be the same when a run goes on, beside the stage's
            lengths and the optimizer's config.
        verbose: of `fit`.

    Raises:
        TrainingError: arguments that do not go together.

    Example:
        >>> import numpy as np
        >>> class Noise:
        ...     def __len__(self): return 4
        ...     def batch(self, epoch, index):
        ...         rng = np.random.default_rng((0, epoch, index))
        ...         return rng.normal(size=(8, 3)), rng.normal(size=(8, 1))
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> stage = Stage(model, Noise(), "adamw", steps=8, compiling={"loss": "mse"})
        >>> stage.run().steps
        8
    """

    model: keras.Model
    data: Batches
    optimizer: Any = None
    steps: int | None = None
    minutes: float | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()
    compiling: Mapping[str, Any] = field(default_factory=dict)
    segment: int | None = None
    warmup: int = 4
    save_seconds: float = 0.0
    frozen: Sequence[keras.layers.Layer] = ()
    unchanged: Sequence[keras.Variable] = ()
    validation: Any = None
    threads: int = 1
    processes: int = 0
    preload: Sequence[str] = ()
    passes: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    verbose: int = 0

    def __post_init__(self) -> None:
        """Checks, and compiles."""
        if not isinstance(self.data, Batches):
            raise TrainingError(
                f"a stage takes data with __len__ and batch(epoch, index), got a "
                f"{type(self.data).__name__}"
            )
        for name, value in (("steps", self.steps), ("minutes", self.minutes)):
            if value is not None and not value > 0:
                raise TrainingError(f"{name} is {value}; expected more than 0")
        if (self.steps is None) == (self.minutes is None):
            raise TrainingError("a stage takes either steps or minutes")
        if self.segment_length < 1 or self.passes < 1:
            raise TrainingError(
                f"a segment of {self.segment_length} steps, {self.passes} passes: "
                "expected 1 or more"
            )
        if self.optimizer is not None:
            self.model.compile(self.optimizer, **self.compiling)
        if not self.model.compiled:
            raise TrainingError(f"{self.model.name} is not compiled: give the stage an optimizer")
        for layer in self.frozen:
            if layer.trainable_variables:
                raise TrainingError(f"{layer.name} is said to be frozen, but it learns")
        for variable in self.unchanged:
            if variable.trainable:
                raise TrainingError(f"{variable.path} is said to be unchanged, but it learns")
        self.peak = None if self.minutes is None else _rate_to_set(self.model.optimizer)
        self._moved_by = _plain_settings("optimizer", self.model.optimizer.get_config())

    @property
    def segment_length(self) -> int:
        """Steps between two states."""
        return len(self.data) if self.segment is None else self.segment

    @property
    def all_settings(self) -> dict[str, Any]:
        """What has to be the same when a run goes on, as JSON gives it back."""
        own: dict[str, Any] = {"steps": self.steps, "minutes": self.minutes}
        own |= {"epoch": len(self.data), "passes": self.passes}
        told = {**own, **self._moved_by, **self.settings}
        settings: dict[str, Any] = json.loads(json.dumps(told, default=str))
        return settings

    @property
    def weights(self) -> list[keras.Variable]:
        """The model's variables that are written, statistics and seeds with them."""
        left_out = {id(weight) for layer in self.frozen for weight in layer.weights}
        left_out |= {id(variable) for variable in self.unchanged}
        every = [*self.model.trainable_variables, *self.model.non_trainable_variables]
        return [variable for variable in every if id(variable) not in left_out]

    def run(self, folder: str | Path | None = None) -> Outcome:
        """Trains, or goes on; a finished stage only gives the model its weights.

        Args:
            folder: of the states and of `metrics.jsonl`; None keeps nothing.

        Raises:
            TrainingError: the folder belongs to another stage or network, or the loss is no number
                any more (the last good state stays).
            CheckpointError: a damaged state; without its folder the run goes on from the one
                before.
        """
        place = None if folder is None else Path(folder)
        if place is None or not is_finished(place):
            return Run(self, place).run()
        self.check(place / FINISHED)
        position = read_state(place / FINISHED, self.weights)
        lines = MetricsLog(place / METRICS).lines()
        return Outcome(position.step, position.seconds, lines[-1] if lines else {})

    def check(self, state: Path) -> None:
        """Refuses a state that a stage with other settings left.

        Raises:
            TrainingError: names the setting that differs.
        """
        found, wanted = read_position(state).settings, self.all_settings
        for name in {**found, **wanted}:
            if found.get(name) != wanted.get(name):
                raise TrainingError(
                    f"{state.parent} belongs to a stage with {name}={found.get(name)!r}, this one "
                    f"has {wanted.get(name)!r}: take another folder, or the same settings"
                )


def is_finished(folder: str | Path) -> bool:
    """Whether the stage of a folder is done."""
    return (Path(folder) / FINISHED).is_dir()


def has_begun(folder: str | Path) -> bool:
    """Whether there is something in a folder to go on from."""
    return is_finished(folder) or bool(saved_states(Path(folder)))


def _plain_settings(place: str, config: Any) -> dict[str, Any]:
    """An optimizer's config without its automatic names: place -> value."""
    if not isinstance(config, Mapping):
        return {place: config}
    left_out = ("name", "registered_name", "build_config")
    parts = [_plain_settings(f"{place}.{k}", v) for k, v in config.items() if k not in left_out]
    return {name: value for part in parts for name, value in part.items()}


def _rate_to_set(optimizer: keras.optimizers.Optimizer) -> float:
    """The constant rate of an optimizer, which the clock then changes."""
    config = optimizer.get_config()
    rate = config.get("inner_optimizer", {}).get("config", config).get("learning_rate")
    if not isinstance(rate, float):
        raise TrainingError(
            f"a stage of so many minutes sets the rate itself: give {type(optimizer).__name__} a "
            "number as its learning_rate"
        )
    return rate
