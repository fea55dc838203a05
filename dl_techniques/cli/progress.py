"""A progress bar on stderr, drawn only for a person: nothing is written where stderr is no tty.

Example:
    >>> from dl_techniques.cli.progress import Progress
    >>> with Progress("pictures", total=2) as bar:
    ...     bar.advance()
    ...     bar.advance()
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from dl_techniques.cli.notes import is_quiet

WIDTH = 30
REDRAW_SECONDS = 0.1


class Progress:
    """Counts steps of long work.

    Args:
        label: what is being counted.
        total: number of steps; 0 where it is not known.
        stream: where to draw; stderr if None.
    """

    def __init__(self, label: str, total: int = 0, stream: TextIO | None = None) -> None:
        self.label = label
        self.total = total
        self.done = 0
        self._stream = stream if stream is not None else sys.stderr
        self._visible = self._stream.isatty() and not is_quiet()
        self._drawn_at = 0.0

    def __enter__(self) -> Progress:
        self._draw(force=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.clear()

    def advance(self, steps: int = 1) -> None:
        """Counts `steps` as done."""
        self.done += steps
        self._draw(force=self.done >= self.total)

    def clear(self) -> None:
        """Takes the bar off the screen."""
        if self._visible:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()

    def text(self) -> str:
        """What is drawn."""
        if not self.total:
            return f"{self.label} ..."
        filled = WIDTH * min(self.done, self.total) // self.total
        bar = "#" * filled + "." * (WIDTH - filled)
        return f"{self.label} [{bar}] {self.done}/{self.total}"

    def _draw(self, force: bool = False) -> None:
        now = time.monotonic()
        if not self._visible or (not force and now - self._drawn_at < REDRAW_SECONDS):
            return
        self._drawn_at = now
        self._stream.write("\r\x1b[2K" + self.text())
        self._stream.flush()
