"""Random numbers that the backend draws from a state of its own, outside all variables.

On PyTorch, Keras' layers that were given no seed (`Dropout(0.1)`) draw from PyTorch's generator.
The other backends draw from seeds that are variables of the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from dl_techniques.training.callbacks import Logs, StatefulCallback


class RandomState(StatefulCallback):
    """Makes PyTorch's generators (the processor's and the accelerator's) part of the state."""

    def __init__(self) -> None:
        super().__init__()
        self._states: list[keras.Variable] = []
        self._now: list[np.ndarray] = []

    def build(self, model: keras.Model) -> None:
        """Creates a variable for each generator, with its state."""
        self._states = [
            keras.Variable(state, dtype="uint8", trainable=False, name="random_state")
            for state in _read()
        ]

    @property
    def variables(self) -> Sequence[keras.Variable]:
        """uint8[bytes] of each generator."""
        return self._states

    def on_train_begin(self, logs: Logs = None) -> None:
        """Goes on from what was restored."""
        self._now = [np.asarray(ops.convert_to_numpy(state.value)) for state in self._states]

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Undoes what `fit` draws between segments, so that their length changes nothing."""
        if batch == 0:
            _write(self._now)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Notes the generators' states."""
        self._now = _read()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Gives them to the variables, which are saved next."""
        for variable, state in zip(self._states, self._now, strict=True):
            variable.assign(state)


def _read() -> list[np.ndarray]:
    if keras.config.backend() != "torch":
        return []
    import torch

    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return [state.numpy().copy() for state in states]


def _write(states: Sequence[np.ndarray]) -> None:
    if not states:
        return
    import torch

    torch.set_rng_state(torch.from_numpy(states[0].copy()))
    if len(states) > 1:
        torch.cuda.set_rng_state(torch.from_numpy(states[1].copy()))
