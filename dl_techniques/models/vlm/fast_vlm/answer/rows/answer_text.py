"""The text of one answer as its tokens come: whole characters, and never half a stop text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

INCOMPLETE = "\ufffd"  # what the bytes of half a character decode to


class StopWatch:
    """Passes text on until one of several stop texts is complete.

    What may be the beginning of a stop text is held back until it is known. The text that comes
    out does not depend on the pieces that went in: the stop text that is complete first counts, of
    several the longest.

    Args:
        stop: the stop texts.

    Attributes:
        hit: the stop text that was found, or None.

    Example:
        >>> watch = StopWatch(["\\n\\n"])
        >>> watch.feed("a\\n"), watch.feed("b\\n"), watch.feed("\\nc"), watch.hit
        ('a', '\\nb', '', '\\n\\n')
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self.hit: str | None = None
        self._stop = sorted(stop, key=len, reverse=True)
        self._held = ""

    def feed(self, piece: str) -> str:
        """The text that may be shown now; nothing once a stop text was found."""
        if self.hit is not None:
            return ""
        text = self._held + piece
        ends = [(text.find(stop) + len(stop), stop) for stop in self._stop if stop in text]
        if ends:
            end, self.hit = min(ends, key=lambda found: found[0])
            self._held = ""
            return text[: end - len(self.hit)]
        keep = self._beginning(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, now that nothing more comes."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Length of the longest end of the text that begins a stop text."""
        longest = len(self._stop[0]) - 1 if self._stop else 0
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0


class AnswerText:
    """Tokens in, text out, piece by piece.

    Args:
        detokenize: token ids -> text, special tokens left out.
        stop: texts that end the answer.
        min_new_tokens: in what was written before so many tokens, stop texts are not looked for.

    Attributes:
        text: the pieces so far, joined.
        token_ids: the tokens so far.
        stopped: the stop text that ended the answer, or None.
    """

    def __init__(
        self,
        detokenize: Callable[[Sequence[int]], str],
        stop: Sequence[str] = (),
        min_new_tokens: int = 0,
    ) -> None:
        self.text = ""
        self.token_ids: list[int] = []
        self._detokenize = detokenize
        self._waiting: list[int] = []
        self._watch = StopWatch(stop)
        self._min_new_tokens = min_new_tokens

    @property
    def stopped(self) -> str | None:
        """The stop text that ended the answer; it is no part of the text."""
        return self._watch.hit

    def add(self, token: int) -> str:
        """The text that became certain with one more token; often none."""
        self.token_ids.append(token)
        self._waiting.append(token)
        piece = self._detokenize(self._waiting)
        if piece.endswith(INCOMPLETE):
            return ""
        return self._pass_on(piece)

    def end(self) -> str:
        """What is left when no more tokens come."""
        piece = self._pass_on(self._detokenize(self._waiting)) if self._waiting else ""
        rest = self._watch.flush()
        self.text += rest
        return piece + rest

    def ended(self) -> str:
        """The whole text, now that no more tokens come."""
        self.end()
        return self.text

    def _pass_on(self, piece: str) -> str:
        self._waiting = []
        if len(self.token_ids) > self._min_new_tokens:
            piece = self._watch.feed(piece)
        self.text += piece
        return piece
