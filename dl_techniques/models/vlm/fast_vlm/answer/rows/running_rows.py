"""Rows that join and leave a running batch: one set of caches, every row at its own place.

The phases align the rows of a batch at their ends, so all of them begin together. Here slot i of
a row holds the row's position i, whatever the others do: a row can be read while others write,
and starts anew, or from any beginning that it holds already, without a word to them. The last
slot of every row is for what nobody is to see: padding, and rows that rest.

Shapes are few: 1, 2, 4, ... rows at a time, of one token or of a piece of a prompt.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.answer.phases import Phases
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.models.vlm.fast_vlm.network.decoders import Caches, GroupedAdapter
from dl_techniques.typing import Tensor

SMALLEST_PIECE = 16
READ_AT_ONCE = 8  # most prompts that are read together: bounds the number of shapes


def can_join(backbone: FastVLMBackbone) -> bool:
    """Whether a decoder's rows can stand at places of their own.

    Those of Qwen, Qwen3 and Llama can. The layers of Phi3, OPT, Gemma3 and of sliding windows are
    KerasHub's own, whose calls take one index for all rows.
    """
    return isinstance(backbone.decoder, GroupedAdapter)


def rounded(number: int, most: int) -> int:
    """The next power of two, or `most` where that is less.

    Example:
        >>> [rounded(n, 6) for n in (1, 3, 5)]
        [1, 4, 6]
    """
    return min(most, 1 << (number - 1).bit_length())


class RunningRows:
    """The caches of a running batch, and what is done with them.

    Args:
        phases: of a model whose rows can join (`can_join`).
        rows: R. How many answers run at once.
        capacity: S. Slots of a row; it holds `S - 1` tokens.

    Raises:
        PromptError: the decoder's rows cannot stand at places of their own.
    """

    at_once = READ_AT_ONCE
    can_copy = True

    def __init__(self, phases: Phases, rows: int, capacity: int) -> None:
        if not can_join(phases.backbone):
            raise PromptError(
                f"rows of a {type(phases.backbone.text_backbone).__name__} cannot join a running "
                "batch: its layers take one index for all rows; use the phases"
            )
        self.rows = rows
        self.capacity = capacity
        self._phases = phases
        self._decoder: Any = phases.decoder
        self._caches: Caches | None = None
        self.reset()

    def reset(self) -> None:
        """Forgets all rows. Also after an error: the caches of a call that failed are gone."""
        self._caches = None
        self._caches = self._decoder.empty_caches(self.rows, self.capacity)

    @property
    def nbytes(self) -> int:
        """Bytes of the caches."""
        leaves = keras.tree.flatten(self._caches)
        widths = (keras.backend.standardize_dtype(leaf.dtype) for leaf in leaves)
        sizes = (2 if width in ("bfloat16", "float16") else 4 for width in widths)
        shapes = (int(np.prod(leaf.shape)) for leaf in leaves)
        return sum(size * number for size, number in zip(sizes, shapes, strict=True))

    def read(
        self,
        rows: np.ndarray,
        ids: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        features: np.ndarray,
        pictured: np.ndarray,
    ) -> Tensor:
        """Reads a piece of the prompts of some rows.

        Args:
            rows: int[B], all different.
            ids: int32[B, L], padded on the right.
            starts: int[B]. The position of a piece's first token.
            lengths: int[B], each in `1 .. L`.
            features: float[B, L, D]. What stands for the tokens of pictures.
            pictured: bool[B, L]. Where it does.

        Returns:
            Logits float[B, vocabulary] after the last token of every piece.
        """
        length = ids.shape[1]
        places = np.where(pictured, np.arange(length), length).astype("int32")
        return self._call("read", rows, ids, starts, lengths, features, places)

    def step(self, rows: np.ndarray, tokens: np.ndarray, positions: np.ndarray) -> Tensor:
        """Reads one token of some rows.

        Args:
            rows: int[B], all different.
            tokens: int[B].
            positions: int[B]. Where they stand.

        Returns:
            Logits float[B', vocabulary] of the next tokens, `B' >= B`; the first B are the rows'.
        """
        number = len(rows)
        if rounded(number, self.rows) == self.rows:
            return self._step_of_all(rows, tokens, positions)
        ids = np.asarray(tokens, "int32")[:, None]
        ones, nothing = np.ones(number, "int32"), np.zeros((number, 0), "int32")
        features = np.zeros((number, 0, self._decoder.hidden_dim), "float32")
        return self._call("step", rows, ids, positions, ones, features, nothing)

    def _step_of_all(self, rows: np.ndarray, tokens: np.ndarray, positions: np.ndarray) -> Tensor:
        """A step of all rows where they lie; those that rest write where nobody looks."""
        ids = np.zeros((self.rows, 1), "int32")
        starts, lengths = np.zeros(self.rows, "int32"), np.zeros(self.rows, "int32")
        ids[rows, 0], starts[rows], lengths[rows] = tokens, positions, 1
        order = np.concatenate([rows, np.setdiff1d(np.arange(self.rows), rows)])
        function = self._function("all", 1, every=True)
        logits, self._caches = function(ids, starts, lengths, order.astype("int32"), self._taken())
        return logits

    def copy(self, source: int, target: int) -> None:
        """A row becomes what another one is."""

        def run(source: Tensor, target: Tensor, caches: Caches) -> Caches:
            def one(cache: Tensor) -> Tensor:
                row = ops.take(cache, ops.reshape(source, (1,)), axis=0)
                return ops.slice_update(cache, (target, 0, 0, 0), row)

            return keras.tree.map_structure(one, caches)

        function = self._phases.functions.get(("copy row", self.rows), run, donate=(2,))
        self._caches = function(source, target, self._taken())

    def clear(self, row: int) -> None:
        """A row's numbers become zeros: a mask does not hide those that are not finite."""

        def run(row: Tensor, caches: Caches) -> Caches:
            def one(cache: Tensor) -> Tensor:
                nothing = ops.zeros((1, *cache.shape[1:]), cache.dtype)
                return ops.slice_update(cache, (row, 0, 0, 0), nothing)

            return keras.tree.map_structure(one, caches)

        function = self._phases.functions.get(("clear row", self.rows), run, donate=(1,))
        self._caches = function(row, self._taken())

    def _call(
        self,
        name: str,
        rows: np.ndarray,
        ids: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        features: np.ndarray,
        places: np.ndarray,
    ) -> Tensor:
        """Runs on a rounded number of rows; the surplus writes where nobody looks."""
        surplus = rounded(len(rows), self.rows) - len(rows)
        arrays = [
            np.concatenate([array, np.zeros((surplus, *array.shape[1:]), array.dtype)])
            for array in (rows, ids, starts, lengths, features, places)
        ]
        numbers = [a if a.dtype.kind == "f" else a.astype("int32") for a in arrays]
        function = self._function(name, ids.shape[1])
        logits, self._caches = function(*numbers, self._taken())
        return logits

    def _taken(self) -> Caches:
        caches, self._caches = self._caches, None
        assert caches is not None, "a call failed before: reset() first"
        return caches

    def _function(self, name: str, length: int, every: bool = False) -> Any:
        backbone, decoder, last = self._phases.backbone, self._decoder, self.capacity - 1

        def forward(x: Tensor, rows: Any, starts: Tensor, lengths: Tensor, caches: Caches) -> Any:
            steps = ops.arange(length, dtype="int32")[None]
            positions = ops.minimum(starts[:, None] + steps, last)
            slots = ops.where(steps < lengths[:, None], positions, last)
            hidden, caches = decoder.forward_rows(x, caches, rows, positions, slots)
            ends = ops.maximum(lengths - 1, 0)[:, None, None]
            hidden = hidden if length == 1 else ops.take_along_axis(hidden, ends, axis=1)
            return decoder.logits(hidden)[:, 0], caches

        def some(
            rows: Tensor,
            ids: Tensor,
            starts: Tensor,
            lengths: Tensor,
            features: Tensor,
            places: Tensor,
            caches: Caches,
        ) -> Any:
            x = backbone.image_splice(decoder.embed(ids), features, places)
            return forward(x, rows, starts, lengths, caches)

        def all_rows(
            ids: Tensor, starts: Tensor, lengths: Tensor, order: Tensor, caches: Caches
        ) -> Any:
            logits, caches = forward(decoder.embed(ids), None, starts, lengths, caches)
            return ops.take(logits, order, axis=0), caches

        return self._phases.functions.get(
            ("rows", name, length, self.capacity),
            all_rows if every else some,
            backbone.text_backbone,
            donate=(4,) if every else (6,),
            often=length == 1,
        )
