"""Answers as they come: the token loop, and text pieces cut only between characters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from dl_techniques.models.vlm.fast_vlm.answer.finite import NOT_FINITE, non_finite_error
from dl_techniques.models.vlm.fast_vlm.answer.phases import DecodeState, Phases
from dl_techniques.models.vlm.fast_vlm.answer.rows.answer_text import AnswerText
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_choice import RowChooser, TokenLogprob
from dl_techniques.typing import Tensor

NO_TOKEN = -1


class TokenLoop:
    """Iterates over an answer's tokens: one int[B] per step, -1 for rows that are done.

    A row is done after its stop token (which is given out) or when it used up its limit. The
    loop ends when all rows are done.

    Args:
        phases: The model's phases.
        logits: float[B, vocabulary] after the prompts.
        state: The state after the prompts. Consumed.
        choose: float[B, vocabulary] -> int[B].
        stop_ids: Tokens that end an answer.
        limits: int[B]. Most new tokens of every row.
        features: float[B, M, D] of the pictures read with the prompts, to tell where numbers that
            are not finite come from; None for none.

    Raises:
        NonFiniteError: while iterating, logits of a row that is not done are NaN or infinite.

    Attributes:
        state: The state so far (None after a step that failed). The last token given out has
            not been read into it.
    """

    def __init__(
        self,
        phases: Phases,
        logits: Tensor,
        state: DecodeState,
        choose: Callable[[Tensor], Tensor],
        stop_ids: Collection[int],
        limits: np.ndarray,
        features: Tensor | None = None,
    ) -> None:
        self.state: Any = state
        self._phases = phases
        self._logits: Tensor | None = logits
        self._choose = choose
        self._stop_ids = list(stop_ids)
        self._limits = limits
        self._steps = 0
        self._done = np.asarray(limits) <= 0
        self._given = np.zeros(len(self._done), "int64")
        self._last: Any = None  # the tokens of the step before; none before the first
        self._features = features

    def __iter__(self) -> Iterator[np.ndarray]:
        return self

    def __next__(self) -> np.ndarray:
        if self._done.all():
            raise StopIteration
        if self._logits is None:
            state, self.state = self.state, None  # consumed, even if the step is interrupted
            self._logits, self.state = self._phases.decode_step(self._last, state)
        self._last, self._logits = self._choose(self._logits), None
        tokens = self._checked(keras.ops.convert_to_numpy(self._last))
        self._steps += 1
        self._given += tokens != NO_TOKEN
        self._done = self._done | np.isin(tokens, self._stop_ids) | (self._steps >= self._limits)
        return tokens

    def _checked(self, chosen: np.ndarray) -> np.ndarray:
        """The tokens to give out, if the logits they were chosen from are finite."""
        marked = chosen == NOT_FINITE
        features, self._features = self._features, None
        if marked.any():
            bad = marked & ~self._done
            if bad.any():
                self.state = None  # its caches hold such numbers too
                self._done = np.ones_like(self._done)
                raise non_finite_error(self._phases.backbone, bad, self._steps, features)
            self._last = np.maximum(chosen, 0)  # rows that are done, whatever they read
        return np.where(self._done, NO_TOKEN, chosen)

    def finish(self, row: int) -> None:
        """Ends a row's answer before its stop token or its limit."""
        self._done[row] = True

    def logprobs(self, row: int) -> list[TokenLogprob]:
        """One for each token of a row, where its settings ask for them."""
        if not isinstance(self._choose, RowChooser):
            return []
        # A row that is done goes on being chosen for until the last one is.
        return self._choose.rows[row].logprobs[: self._given[row]]

    def collect(self, answers: Sequence[AnswerText | None] = ()) -> list[list[int]]:
        """Runs to the end: the tokens of every row.

        Args:
            answers: One a row, for those that a stop text may end; or nothing.
        """
        rows: list[list[int]] = [[] for _ in self._limits]
        watched = list(answers) or [None] * len(rows)
        for tokens in self:
            for i, token in enumerate(tokens.tolist()):
                if token == NO_TOKEN:
                    continue
                rows[i].append(token)
                answer = watched[i]
                if answer is not None:
                    answer.add(token)
                    if answer.stopped is not None:
                        self.finish(i)
        return rows


class TextStream(Iterator[str]):
    """Text pieces of one answer, as its tokens come.

    A piece never ends inside a character: bytes of an unfinished one wait for the rest, and what
    may be the beginning of a stop text waits as well. The pieces joined are the whole answer.

    Args:
        loop: The tokens of one row. It may be a function that starts the work, called when the
            first piece is asked for.
        answer: Makes text of the tokens.
        on_end: Called once, when the answer has ended or the stream was closed.

    Attributes:
        finished: Whether the answer has ended.
    """

    def __init__(
        self,
        loop: TokenLoop | Callable[[], TokenLoop],
        answer: AnswerText,
        on_end: Callable[[TextStream], None] | None = None,
    ) -> None:
        self.finished = False
        self._start = loop
        self._loop: TokenLoop | None = None
        self._answer = answer
        self._on_end = on_end
        self._certainty: Callable[[], float] | None = None

    @property
    def text(self) -> str:
        """The pieces so far, joined."""
        return self._answer.text

    @property
    def token_ids(self) -> list[int]:
        """The tokens so far, a stop token and those of a stop text included."""
        return self._answer.token_ids

    @property
    def tokens(self) -> int:
        """Number of tokens so far."""
        return len(self.token_ids)

    @property
    def stopped(self) -> str | None:
        """The stop text that ended the answer, or None."""
        return self._answer.stopped

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """One a token, where the answer's settings ask for them."""
        return self._loop.logprobs(0) if self._loop is not None else []

    @property
    def certainty(self) -> float | None:
        """The probability that the answer so far is right; None where it was not asked for."""
        return self._certainty() if self._certainty is not None and self.token_ids else None

    def certainty_by(self, compute: Callable[[], float]) -> None:
        """Has the certainty computed, when it is looked at."""
        self._certainty = compute

    @property
    def loop(self) -> TokenLoop:
        """The token loop, started if it was not."""
        if self._loop is None:
            self._loop = self._start if isinstance(self._start, TokenLoop) else self._start()
        return self._loop

    @property
    def started(self) -> bool:
        """Whether the model has begun."""
        return self._loop is not None

    def __next__(self) -> str:
        piece = ""
        while not self.finished and not piece:
            piece = self._step()
        if not piece:
            raise StopIteration
        return piece

    def _step(self) -> str:
        """Takes one token: the text that became certain with it, or what is left at the end."""
        tokens = next(self.loop, None)
        piece = self._answer.end() if tokens is None else self._answer.add(int(tokens[0]))
        if tokens is None or self.stopped is not None:
            self.close()
        return piece

    def close(self) -> None:
        """Ends the stream; harmless when it has ended. What was not given out is dropped."""
        if self.finished:
            return
        self.finished = True
        if self._on_end is not None:
            self._on_end(self)
