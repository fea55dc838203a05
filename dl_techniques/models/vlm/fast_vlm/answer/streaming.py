"""Answers as they come: the token loop, and text pieces cut only between characters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from dl_techniques.models.vlm.fast_vlm.answer.finite import NOT_FINITE, non_finite_error
from dl_techniques.models.vlm.fast_vlm.answer.phases import DecodeState, Phases
from dl_techniques.typing import Tensor

NO_TOKEN = -1
INCOMPLETE = "\ufffd"  # what the bytes of half a character decode to


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
        self._done = limits <= 0
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

    def collect(self) -> list[list[int]]:
        """Runs to the end: the tokens of every row."""
        rows: list[list[int]] = [[] for _ in self._limits]
        for tokens in self:
            for row, token in zip(rows, tokens.tolist(), strict=True):
                if token != NO_TOKEN:
                    row.append(token)
        return rows


class TextStream(Iterator[str]):
    """Text pieces of one answer, as its tokens come.

    A piece never ends inside a character: bytes of an unfinished one wait for the rest. The
    pieces joined are the whole answer.

    Args:
        loop: The tokens of one row. It may be a function that starts the work, called when the
            first piece is asked for.
        detokenize: Token ids -> text, special tokens left out.
        on_end: Called once, when the answer has ended or the stream was closed.

    Attributes:
        text: The pieces so far, joined.
        token_ids: The tokens so far, a stop token included.
        finished: Whether the answer has ended.
    """

    def __init__(
        self,
        loop: TokenLoop | Callable[[], TokenLoop],
        detokenize: Callable[[Sequence[int]], str],
        on_end: Callable[[TextStream], None] | None = None,
    ) -> None:
        self.text = ""
        self.token_ids: list[int] = []
        self.finished = False
        self._start = loop
        self._loop: TokenLoop | None = None
        self._detokenize = detokenize
        self._on_end = on_end
        self._waiting: list[int] = []

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
        """Takes one token: the text that became complete with it, or what is left at the end."""
        tokens = next(self.loop, None)
        if tokens is not None:
            self.token_ids.append(int(tokens[0]))
            self._waiting.append(int(tokens[0]))
        piece = self._detokenize(self._waiting) if self._waiting else ""
        if tokens is not None and piece.endswith(INCOMPLETE):
            return ""
        self._waiting = []
        self.text += piece
        if tokens is None:
            self.close()
        return piece

    def close(self) -> None:
        """Ends the stream; harmless when it has ended. What was not given out is dropped."""
        if self.finished:
            return
        self.finished = True
        if self._on_end is not None:
            self._on_end(self)
