"""What a row's past does to the logits of its next token.

Reference: Hugging Face `transformers`, `generation/logits_process.py` (`RepetitionPenalty`,
`NoRepeatNGram` and `MinNewTokensLength` processors); OpenAI's API reference, "frequency and
presence penalties".
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

import numpy as np

from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings


class Penalties:
    """The penalties of one answer, kept up to date with every token.

    Args:
        settings: which, and how strong.
        prompt: int[n]. The tokens before the answer.
        stop_ids: tokens that end an answer. No penalty touches them: every prompt holds some.
    """

    def __init__(
        self, settings: RowSettings, prompt: Sequence[int] | np.ndarray, stop_ids: Collection[int]
    ) -> None:
        self._settings = settings
        self._stop_ids = np.asarray(sorted(set(stop_ids)), "int64")
        self._seen: set[int] = set()
        self._written: Counter[int] = Counter()
        self._last: tuple[int, ...] = ()  # the last n - 1 tokens
        self._followers: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
        for token in prompt:
            self._see(int(token))

    def add(self, token: int) -> None:
        """Takes a token of the answer into account."""
        self._written[token] += 1
        self._see(token)

    def apply(self, logits: np.ndarray, answer: Sequence[int]) -> np.ndarray:
        """The logits to choose from, float32[V], as a copy.

        Args:
            logits: finite float[V].
            answer: the tokens written so far.
        """
        settings, changed = self._settings, np.array(logits, "float32")
        if settings.repetition_penalty != 1.0:
            seen = np.fromiter(self._seen, "int64", len(self._seen))
            values, strength = changed[seen], np.float32(settings.repetition_penalty)
            changed[seen] = np.where(values < 0, values * strength, values / strength)
        if self._written:
            tokens = np.fromiter(self._written, "int64", len(self._written))
            counts = np.fromiter(self._written.values(), "float32", len(self._written))
            changed[tokens] -= np.float32(settings.presence_penalty)
            changed[tokens] -= np.float32(settings.frequency_penalty) * counts
        banned = self._banned()
        if len(banned) < len(changed):  # where everything was written, nothing is forbidden
            changed[banned] = -np.inf
        changed[self._stop_ids] = logits[self._stop_ids]
        if len(answer) < settings.min_new_tokens and len(self._stop_ids) < len(changed):
            changed[self._stop_ids] = -np.inf
        return changed

    def _banned(self) -> np.ndarray:
        """Tokens that would repeat a run."""
        size = self._settings.no_repeat_ngram_size
        if size == 0 or len(self._last) < size - 1:
            return np.zeros(0, "int64")
        followers = self._followers.get(self._last, set())
        return np.fromiter(followers, "int64", len(followers))

    def _see(self, token: int) -> None:
        self._seen.add(token)
        size = self._settings.no_repeat_ngram_size
        if size == 0:
            return
        if len(self._last) == size - 1:
            self._followers[self._last].add(token)
        self._last = (*self._last, token)[-(size - 1) :] if size > 1 else ()
