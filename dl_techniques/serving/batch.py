"""The running batch: who sits in which row, what is read next, which tokens come of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import keras_hub
import numpy as np

from dl_techniques.errors import NonFiniteError
from dl_techniques.models.vlm.fast_vlm.answer.alignment import bucket
from dl_techniques.models.vlm.fast_vlm.answer.finite import NOT_FINITE
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_choice import choose_tokens
from dl_techniques.models.vlm.fast_vlm.answer.rows.running_rows import (
    SMALLEST_PIECE,
    RunningRows,
    can_join,
)
from dl_techniques.models.vlm.fast_vlm.answer.sampling import TokenChooser
from dl_techniques.runtime.compile import calls_until_steady
from dl_techniques.serving.apart import RowsApart
from dl_techniques.serving.feature_store import FeatureStore
from dl_techniques.serving.places import Place, common, seat
from dl_techniques.serving.replies import Reply
from dl_techniques.typing import Tensor


class Batch:
    """Answers that are written side by side. For one thread.

    Args:
        model: a `FastVLMCausalLM` with a preprocessor.
        rows: how many answers run at once.
        context: most tokens of a prompt and its answer.
        piece: so many tokens of a prompt are read between two steps of the others.
        feature_bytes: most bytes of kept features.
    """

    def __init__(self, model: Any, rows: int, context: int, piece: int, feature_bytes: int) -> None:
        self.store = FeatureStore(model, feature_bytes)
        self.joins = can_join(model.backbone)
        self._model = model
        self._phases = model.phases
        self._phases.functions.refresh(model.backbone.variables)
        # One slot more than tokens are read, for what nobody is to see: the last token never is.
        capacity = bucket(context)
        self._rows: Any = (
            RunningRows(self._phases, rows, capacity)
            if self.joins
            else RowsApart(self._phases, rows, capacity, piece)
        )
        self._pieces = [
            SMALLEST_PIECE << i for i in range(20) if SMALLEST_PIECE << i <= max(piece, 16)
        ]
        self._stop_ids = model.stop_ids()
        self._greedy = TokenChooser(
            keras_hub.samplers.GreedySampler(), None, self._phases.functions
        )
        self._places = [Place(i) for i in range(rows)]
        self._count = itertools.count(1)

    @property
    def running(self) -> int:
        """Number of rows whose answers are written."""
        return sum(place.reply is not None for place in self._places)

    @property
    def free(self) -> int:
        """Number of rows that nobody uses."""
        return len(self._places) - self.running

    def warm_up(self, each: Callable[[], None] = lambda: None) -> None:
        """Runs every shape as often as it takes until nothing is compiled any more.

        Args:
            each: called between the shapes; may raise to end it.
        """
        size = self._model.preprocessor.image_converter.image_size
        for number in _powers(8):
            pixels = np.zeros((number, 1, *size, 3), "float32")
            self._often(self._model.encode_images, pixels)
            each()
        for number in _powers(min(self._rows.at_once, len(self._places))):
            for length in self._pieces:
                self._read_nothing(number, length)
                each()
        for number in _powers(len(self._places) if self._rows.at_once > 1 else 1):
            self._often(self._step_nothing, number)
            each()
        if self._rows.can_copy and len(self._places) > 1:
            self._rows.copy(0, 1)
        self.reset()

    def admit(self, replies: Sequence[Reply]) -> None:
        """Gives rows to replies, no more than are free, and encodes all their new pictures."""
        places = []
        for reply in replies:
            place = self._seat(reply)
            reply.times.started = time.perf_counter()
            place.reply, place.used = reply, next(self._count)
            places.append(place)
        needed: dict[bytes, np.ndarray] = {}
        for place in places:
            question = place.asked.question
            if question.pictured[len(place.held) :].any():
                needed |= dict(zip(question.digests, question.pictures, strict=True))
        found = self.store.features(list(needed), list(needed.values())) if needed else {}
        for place in places:
            digests = place.asked.question.digests
            place.features = {digest: found[digest] for digest in digests if digest in found}

    def turn(self) -> None:
        """Ends what nobody waits for, reads a piece of what is unread, and steps the others."""
        for place in self._taken():
            if place.asked.cancelled:
                self._leave(place, "cancelled")
            elif place.asked.out_of_time():
                self._leave(place, "length")
        writing = [place for place in self._taken() if place.unread <= 0]
        reading = [place for place in self._taken() if place.unread > 0]
        if reading:
            reading.sort(key=lambda place: place.used)
            self._read(reading[: self._rows.at_once])
        if writing:
            self._step(writing)

    def fail(self, error: Exception) -> None:
        """Ends all answers with an error, and forgets all rows: their caches may be gone."""
        for place in self._taken():
            place.asked.finish("error", error)
            place.reply = None
        self.reset()

    def cancel_all(self, error: Exception) -> None:
        """Ends all answers where they are."""
        for place in self._taken():
            place.asked.finish("error", error)
            place.reply = None

    def reset(self) -> None:
        """Forgets what the rows hold."""
        self._rows.reset()
        for place in self._places:
            place.held, place.features = np.zeros(0, "int64"), {}

    def _taken(self) -> list[Place]:
        return [place for place in self._places if place.reply is not None]

    def _leave(self, place: Place, reason: Any) -> None:
        place.asked.finish(reason)
        place.reply, place.features = None, {}

    def _seat(self, reply: Reply) -> Place:
        """A free row for a question, with as much of its prompt as any row holds."""
        contents = reply.question.contents
        place, source = seat(self._places, contents)
        if source is not None and self._rows.can_copy:
            self._rows.copy(source.index, place.index)
            place.held = source.held
        # The last token is read anew: its logits choose the first one of the answer.
        keep = min(common(place.held, contents), len(contents) - 1)
        place.held, reply.cached = place.held[:keep], keep
        return place

    def _read(self, places: Sequence[Place]) -> None:
        """Reads a piece of the prompts; those that end with it choose their first token."""
        longest = min(max(place.unread for place in places), self._pieces[-1])
        size = next(size for size in self._pieces if size >= longest)
        number, width = len(places), self._model.backbone.hidden_dim
        ids, features = (
            np.zeros((number, size), "int32"),
            np.zeros((number, size, width), "float32"),
        )
        pictured, lengths = np.zeros((number, size), bool), np.zeros(number, "int32")
        starts = np.array([len(place.held) for place in places], "int32")
        for i, place in enumerate(places):
            lengths[i] = self._fill(place, ids[i], features[i], pictured[i])
        rows = np.array([place.index for place in places], "int32")
        logits = self._rows.read(rows, ids, starts, lengths, features, pictured)
        for place, start, length in zip(places, starts, lengths, strict=True):
            piece = place.asked.question.contents[start : start + length]
            place.held = np.concatenate([place.held, piece])
        self._choose(logits, [place if place.unread == 0 else None for place in places])

    def _fill(
        self, place: Place, ids: np.ndarray, features: np.ndarray, pictured: np.ndarray
    ) -> int:
        """Writes the next piece of a prompt into arrays of one row; its length."""
        question, start = place.asked.question, len(place.held)
        length = min(place.unread, len(ids))
        ids[:length] = question.token_ids[start : start + length]
        pictured[:length] = question.pictured[start : start + length]
        if pictured.any():
            per_picture = self._model.preprocessor.num_image_tokens
            first = int(question.pictured[:start].sum())
            for place_of, number in zip(np.flatnonzero(pictured), itertools.count(first)):
                rows = place.features[question.digests[number // per_picture]]
                features[place_of] = rows[number % per_picture]
        return length

    def _step(self, places: Sequence[Place]) -> None:
        """Reads the last token of every answer, and chooses the next one."""
        tokens = np.array([place.asked.token_ids[-1] for place in places], "int32")
        rows = np.array([place.index for place in places], "int32")
        logits = self._rows.step(rows, tokens, np.array([len(p.held) for p in places], "int32"))
        for place, token in zip(places, tokens, strict=True):
            place.held = np.append(place.held, np.int64(token))
        self._choose(logits, places)

    def _choose(self, logits: Tensor, places: Sequence[Place | None]) -> None:
        """Chooses the next token of every place that is not None, and hands it on."""
        if not any(places):
            return
        replies = [place.asked if place is not None else None for place in places]
        rows = [reply.row if reply is not None else None for reply in replies]
        if all(row is None or (row.plain and row.settings.logprobs is None) for row in rows):
            tokens = keras.ops.convert_to_numpy(self._greedy(logits))
            for row, token in zip(rows, tokens, strict=False):
                if row is not None and token != NOT_FINITE:
                    row.tokens.append(int(token))
        else:
            values = keras.ops.convert_to_numpy(keras.ops.cast(logits, "float32"))
            tokens = choose_tokens(values[: len(rows)], rows)
        for place, token in zip(places, tokens.tolist(), strict=False):
            if place is not None:
                self._hand_on(place, token)

    def _hand_on(self, place: Place, token: int) -> None:
        if token == NOT_FINITE:
            error = NonFiniteError(
                "the model computes NaN or infinities for this question, so there is no answer; "
                "ask it through `generate`, which finds where they begin"
            )
            place.asked.finish("error", error)
            place.reply = None
            self._forget(place)
        elif place.asked.take(token, self._stop_ids):
            place.reply, place.features = None, {}

    def _forget(self, place: Place) -> None:
        """Makes sure that nobody goes on from numbers that are not finite, masked or not."""
        place.held = np.zeros(0, "int64")
        self._rows.clear(place.index)

    @staticmethod
    def _often(call: Callable[..., Any], given: Any) -> None:
        for _ in range(calls_until_steady()):
            keras.ops.convert_to_numpy(keras.ops.max(call(given)))

    def _step_nothing(self, number: int) -> Tensor:
        """A step of some rows, chosen from as any other."""
        tokens = np.zeros(number, "int32")
        return self._greedy(self._rows.step(np.arange(number), tokens, tokens + 1))

    def _read_nothing(self, number: int, length: int) -> None:
        """A piece of zeros, chosen from as any other."""
        shape = (number, length)
        features = np.zeros((*shape, self._model.backbone.hidden_dim), "float32")
        ones, zeros = np.ones(number, "int32"), np.zeros(number, "int32")
        logits = self._rows.read(
            np.arange(number), np.zeros(shape, "int32"), zeros, ones, features, features[..., 0] > 0
        )
        keras.ops.convert_to_numpy(self._greedy(logits))


def _powers(most: int) -> Iterable[int]:
    """1, 2, 4, ... and `most`."""
    return sorted({min(1 << i, most) for i in range(most.bit_length() + 1)})
