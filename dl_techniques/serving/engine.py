"""The engine: one thread that owns the model, and everybody else's way to it.

A model is safe to use from several threads, and no faster for it. Here one thread reads and
writes for all: questions wait in a queue of bounded length, join the running batch when a row is
free, and leave it when they end. Between two steps it looks who no longer waits for an answer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dl_techniques.errors import QueueFullError, ServingError, StoppedError
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_choice import AnswerRow
from dl_techniques.serving.batch import Batch
from dl_techniques.serving.questions import Question
from dl_techniques.serving.replies import Piece, Reply

LOG = logging.getLogger(__name__)
MIB = 2**20


@dataclass(frozen=True)
class EngineOptions:
    """How much an engine does at once.

    Attributes:
        rows: answers that are written side by side.
        waiting: questions that may wait for a row.
        context: most tokens of a prompt and its answer; None for the model's, up to 4096. Every row
            has memory for so many.
        piece: so many tokens of a prompt are read between two steps of the others; a power of two
            of at least 16.
        feature_bytes: most bytes of pictures' features that are kept.
    """

    rows: int = 8
    waiting: int = 64
    context: int | None = None
    piece: int = 64
    feature_bytes: int = 256 * MIB

    def __post_init__(self) -> None:
        for name in ("rows", "waiting", "piece", "feature_bytes"):
            if getattr(self, name) < 1:
                raise ServingError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.piece < 16 or self.piece & (self.piece - 1):
            raise ServingError(f"piece must be a power of two of at least 16, got {self.piece}")
        if self.context is not None and self.context < 32:
            raise ServingError(f"context must be at least 32 tokens, got {self.context}")


class Engine:
    """Answers questions of many threads with one model.

    Args:
        model: a `FastVLMCausalLM` with a preprocessor; nobody else may use it meanwhile.
        options: how much at once.

    Raises:
        ServingError: the model has no preprocessor.

    Attributes:
        context: most tokens of a prompt and its answer.

    Example:
        >>> engine = Engine(model)  # doctest: +SKIP
        >>> engine.start()  # doctest: +SKIP
        >>> question = make_question(model, [{"role": "user", "content": "Why?"}])  # doctest: +SKIP
        >>> print("".join(engine.submit(question)))  # doctest: +SKIP
        >>> engine.close()  # doctest: +SKIP
    """

    def __init__(self, model: Any, options: EngineOptions | None = None) -> None:
        if model.preprocessor is None:
            raise ServingError("the model has no preprocessor; serve one that takes texts")
        self.model = model
        self.options = options or EngineOptions()
        known = [n for n in (self.options.context, model.context_length) if n is not None]
        self.context: int = min(known) if self.options.context else min([*known, 4096])
        self._waiting: deque[Reply] = deque()
        self._change = threading.Condition()
        self._ready = threading.Event()
        self._stopping = False
        self._until: float | None = None
        self._batch: Batch | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the thread; the engine is `ready` when every shape has run."""
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether questions are taken."""
        return self._ready.is_set() and not self._stopping and self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def running(self) -> int:
        """Answers that are written now."""
        return self._batch.running if self._batch is not None else 0

    @property
    def waiting(self) -> int:
        """Questions that wait for a row."""
        return len(self._waiting)

    def wait_until_ready(self, seconds: float | None = None) -> bool:
        """Waits for the warm-up; False if it took longer, or the engine failed."""
        self._ready.wait(seconds)
        return self.ready

    def submit(
        self,
        question: Question,
        listener: Callable[[Piece], None] | None = None,
        seconds: float | None = None,
    ) -> Reply:
        """Queues a question. For any thread.

        Args:
            question: of `make_question`.
            listener: as `Reply`.
            seconds: the answer ends after so long, with what there is; None for no such limit.

        Raises:
            QueueFullError: too many wait.
            StoppedError: the engine is starting or stopping.
        """
        settings = question.settings
        row = AnswerRow(settings, question.token_ids, self.model.stop_ids())
        deadline = None if seconds is None else time.perf_counter() + seconds
        reply = Reply(question, self.model.answer_text(settings), row, deadline, listener)
        with self._change:
            if not self.ready:
                state = "stopping" if self._stopping else "starting"
                raise StoppedError(f"the engine is {state} and takes no questions now")
            if len(self._waiting) >= self.options.waiting:
                raise QueueFullError(
                    f"{self.options.waiting} questions wait already; ask again in a second"
                )
            self._waiting.append(reply)
            self._change.notify()
        return reply

    def close(self, seconds: float = 10.0) -> None:
        """Takes no more questions, lets the running answers end, and tells those that do not.

        Args:
            seconds: how long to let them.
        """
        with self._change:
            self._stopping = True
            self._until = time.perf_counter() + seconds
            self._change.notify()
        if self._thread.is_alive():
            self._thread.join()
        self._ready.set()

    def _run(self) -> None:
        try:
            options = self.options
            self._batch = Batch(
                self.model, options.rows, self.context, options.piece, options.feature_bytes
            )
            self._batch.warm_up(self._stop_if_asked)
        except _StopWarmUp:
            return
        except Exception:
            LOG.exception("the engine could not be started")
            return
        finally:
            if self._batch is None or self._stopping:
                self._ready.set()
        self._ready.set()
        try:
            self._answer(self._batch)
        finally:
            self._stopping = True
            self._end(self._batch)

    def _answer(self, batch: Batch) -> None:
        """One turn after the other, until the end."""
        while self._admit(batch):
            try:
                batch.turn()
            except Exception as error:
                LOG.exception("a step failed; all running answers end with an error")
                batch.fail(ServingError(f"the model failed: {type(error).__name__}"))

    def _stop_if_asked(self) -> None:
        if self._stopping:
            raise _StopWarmUp

    def _admit(self, batch: Batch) -> bool:
        """Lets those who wait into free rows, or waits for some to come; False at the end."""
        joining: list[Reply] = []
        with self._change:
            while not self._waiting and not batch.running and not self._stopping:
                self._change.wait()
            self._waiting = deque(reply for reply in self._waiting if not _ended(reply))
            while self._waiting and len(joining) < batch.free:
                joining.append(self._waiting.popleft())
        if self._stopping and not (joining or batch.running or self._waiting):
            return False
        if self._until is not None and time.perf_counter() > self._until:
            for reply in joining:
                self._tell(reply)
            return False
        if joining:
            try:
                batch.admit(joining)
            except Exception as error:
                LOG.exception("pictures could not be encoded")
                failed = ServingError(f"the model failed: {type(error).__name__}")
                for reply in joining:
                    reply.finish("error", failed)
                batch.fail(failed)
        return True

    def _end(self, batch: Batch) -> None:
        """Tells everybody whose answer did not end."""
        batch.cancel_all(_stopped())
        with self._change:
            while self._waiting:
                self._tell(self._waiting.popleft())

    @staticmethod
    def _tell(reply: Reply) -> None:
        reply.finish("error", _stopped())


class _StopWarmUp(Exception):
    """The engine is closed before it was ready."""


def _ended(reply: Reply) -> bool:
    """Ends a waiting reply that nobody wants, or that has waited too long."""
    if reply.cancelled:
        reply.finish("cancelled")
    elif reply.out_of_time():
        reply.finish("length")
    return reply.finish_reason is not None


def _stopped() -> StoppedError:
    return StoppedError("the service stops and could not finish this answer; ask again")
