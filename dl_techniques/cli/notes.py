"""What the commands say on stderr: notes, which --quiet silences, and errors, which it does not.

Example:
    >>> from dl_techniques.cli.notes import note
    >>> note("one answer")  # on stderr
"""

from __future__ import annotations

import sys

_state = {"quiet": False}


def set_quiet(quiet: bool) -> None:
    """Silences notes and progress in this process, or lets them be heard again."""
    _state["quiet"] = quiet


def is_quiet() -> bool:
    """Whether nothing but errors is to be said."""
    return _state["quiet"]


def note(line: str) -> None:
    """Prints one line on stderr, unless --quiet was given."""
    if not is_quiet():
        print(line, file=sys.stderr, flush=True)


def complain(error: object) -> None:
    """Prints an error on stderr, as one line."""
    print("error: " + " ".join(str(error).split()), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """A text that any stream takes: bytes of a file name that are not UTF-8 become U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
