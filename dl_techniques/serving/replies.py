"""A reply: the answer to one question while it is written, handed from thread to thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Literal

from dl_techniques.models.vlm.fast_vlm.answer.rows.answer_text import AnswerText
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_choice import AnswerRow
from dl_techniques.serving.questions import Question

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class Piece:
    """A piece of an answer.

    Attributes:
        text: never half a character; may be empty at the end.
        tokens: number of tokens of the answer so far.
        last: whether the answer has ended.
    """

    text: str
    tokens: int
    last: bool = False


@dataclass
class Times:
    """When things happened, in seconds of `time.perf_counter`; None where they did not yet."""

    submitted: float
    started: float | None = None
    first: float | None = None
    ended: float | None = None


class Reply(Iterator[str]):
    """The answer to one question; iterate over it for the pieces of its text.

    Args:
        question: what was asked.
        text: makes text of tokens.
        row: chooses the tokens.
        deadline: moment of `time.perf_counter` at which the answer ends as it is; None for never.
        listener: gets every piece in the engine's thread, and must not wait there; the reply then
            cannot be iterated over.

    Attributes:
        finish_reason: "stop", "length", "cancelled" or "error"; None while it is written.
        error: what went wrong, or None.
        cached: tokens of the prompt that had been read before.
        times: when what happened.
    """

    def __init__(
        self,
        question: Question,
        text: AnswerText,
        row: AnswerRow,
        deadline: float | None = None,
        listener: Callable[[Piece], None] | None = None,
    ) -> None:
        self.question = question
        self.row = row
        self.deadline = deadline
        self.finish_reason: FinishReason | None = None
        self.error: Exception | None = None
        self.cached = 0
        self.times = Times(time.perf_counter())
        self._text = text
        self._pieces: SimpleQueue[Piece] = SimpleQueue()
        self._listener = listener or self._pieces.put
        self._cancelled = threading.Event()
        self._heard = False  # whether the last piece was

    @property
    def text(self) -> str:
        """The text so far."""
        return self._text.text

    @property
    def token_ids(self) -> list[int]:
        """The tokens so far, one that ended the answer included."""
        return self.row.tokens

    @property
    def cancelled(self) -> bool:
        """Whether somebody no longer waits for the answer."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Ends the answer at the engine's next step; harmless when it has ended. For any thread."""
        self._cancelled.set()

    def __next__(self) -> str:
        while not self._heard:
            piece = self._pieces.get()
            self._heard = piece.last
            if piece.text:
                return piece.text
        if self.error is not None:
            raise self.error
        raise StopIteration

    def join(self) -> str:
        """Waits for the whole answer.

        Raises:
            DLTechniquesError: what the engine could not do.
        """
        for _ in self:
            pass
        return self.text

    # What the engine does.

    def take(self, token: int, stop_ids: tuple[int, ...]) -> bool:
        """Takes the next token, which the row has already; True if the answer ends with it."""
        if self.times.first is None:
            self.times.first = time.perf_counter()
        piece = self._text.add(token)
        ended: FinishReason | None = None
        if token in stop_ids or self._text.stopped is not None:
            ended = "stop"
        elif len(self.row.tokens) >= self.question.limit:
            ended = "length"
        if ended is None and piece:
            self._listener(Piece(piece, len(self.row.tokens)))
        elif ended is not None:
            self.finish(ended, piece=piece)
        return ended is not None

    def finish(self, reason: FinishReason, error: Exception | None = None, piece: str = "") -> None:
        """Ends the answer, with what is left of its text."""
        if self.finish_reason is not None:
            return
        if reason != "error":
            piece += self._text.end()
        self.error = error
        self.times.ended = time.perf_counter()
        self.finish_reason = reason
        self._listener(Piece(piece, len(self.row.tokens), last=True))

    def out_of_time(self) -> bool:
        """Whether the moment has come at which the answer ends as it is."""
        return self.deadline is not None and time.perf_counter() > self.deadline
