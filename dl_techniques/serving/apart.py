"""The rows of decoders that cannot share a batch: each in caches of its own, one after the other.

The layers of Phi3, OPT, Gemma3 and of sliding windows are KerasHub's, whose calls take one index
for all rows: rows that joined at different times could only run side by side until the slots are
used up. Here they join and leave at any time as well; what they do not share is the work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from dl_techniques.models.vlm.fast_vlm.answer.alignment import Prompts
from dl_techniques.models.vlm.fast_vlm.answer.phases import DecodeState, Phases
from dl_techniques.typing import Tensor


class RowsApart:
    """As `RunningRows`, over the phases.

    Args:
        phases: of any model.
        rows: how many answers run at once.
        capacity: slots of a row.
        piece: longest piece of a prompt: its padding needs slots too.
    """

    at_once = 1
    can_copy = False

    def __init__(self, phases: Phases, rows: int, capacity: int, piece: int) -> None:
        self.rows = rows
        self.capacity = capacity
        self._slots = capacity + piece
        self._phases = phases
        self.reset()

    def reset(self) -> None:
        """Forgets all rows."""
        self._states: list[DecodeState | None] = [None] * self.rows

    def read(
        self,
        rows: np.ndarray,
        ids: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        features: np.ndarray,
        pictured: np.ndarray,
    ) -> Tensor:
        """Reads a piece of the prompts of some rows, as `RunningRows.read`."""
        pieces = zip(rows.tolist(), ids, starts.tolist(), lengths.tolist(), strict=True)
        logits = [
            self._read_one(row, tokens, start, length, features[i : i + 1], pictured[i])
            for i, (row, tokens, start, length) in enumerate(pieces)
        ]
        return ops.concatenate(logits, axis=0)

    def step(self, rows: np.ndarray, tokens: np.ndarray, positions: np.ndarray) -> Tensor:
        """Reads one token of some rows, as `RunningRows.step`."""
        logits = []
        for row, token in zip(rows.tolist(), np.asarray(tokens, "int32"), strict=True):
            given, state = self._phases.decode_step(token[None], self._taken(row))
            self._states[row] = state
            logits.append(given)
        return ops.concatenate(logits, axis=0)

    def clear(self, row: int) -> None:
        """A row's numbers are forgotten."""
        self._states[row] = None

    def _read_one(
        self,
        row: int,
        tokens: np.ndarray,
        start: int,
        length: int,
        features: np.ndarray,
        pictured: np.ndarray,
    ) -> Tensor:
        size = len(tokens)
        places = np.where(pictured, np.arange(size), size).astype("int32")[None]
        offsets, used = np.zeros(1, "int32"), np.ones((1, 1), bool)
        prompts = Prompts(tokens[None], offsets, length, places, used)
        if start == 0:
            logits, state = self._phases.prefill(prompts, features, self._slots)
        else:
            logits, state = self._phases.extend(prompts, features, self._taken(row), start)
        self._states[row] = state
        return logits

    def _taken(self, row: int) -> Any:
        state, self._states[row] = self._states[row], None
        return state
