"""Typed errors of the package: one family, so that callers can tell a bad input from a bug.

Every message is one line and says what came, what was expected and what to do. The command
line catches `DLTechniquesError`, prints the message and exits with code 2; anything else is a
bug and keeps its traceback.

Example:
    >>> from dl_techniques.errors import DLTechniquesError, ImageError
    >>> issubclass(ImageError, DLTechniquesError) and issubclass(ImageError, ValueError)
    True
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

# Characters of a name, and of a whole message, that are shown.
MAX_NAME = 100
MAX_MESSAGE = 4000
# Longer pieces without a space are names that someone put into a message as they came.
_LONG_WORD = re.compile(rf"\S{{{2 * MAX_NAME},}}")


def shorten(name: Any, most: int = MAX_NAME) -> str:
    """A name for messages: its beginning and its end, on one line.

    Args:
        name: What is named; shown as `str` shows it.
        most: Most characters to show, before those that cannot be printed are spelled out.

    Example:
        >>> shorten("data:image/png;base64," + 1000 * "A" + "B", 30)
        'data:image... AAAAAAAAAAAAAAAB'
    """
    text = str(name)
    if len(text) > most:
        head = most // 3
        text = f"{text[:head]}... {text[len(text) - most + head + 4 :]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class DLTechniquesError(Exception):
    """Root of all errors that a user's input can cause.

    Whatever a message was made from, it stays readable: very long names in it are shortened.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        short = (_readable(a) if isinstance(a, str) else a for a in args)
        super().__init__(*short, **kwargs)  # an ImportError also takes the module's name


class ImageError(DLTechniquesError, ValueError):
    """A picture cannot be read or is not a picture."""


class PromptError(DLTechniquesError, ValueError):
    """A question, a conversation or its pictures do not form a valid prompt."""


class SamplingError(DLTechniquesError, ValueError):
    """A sampler, one of its numbers, or a seed says nothing about how to choose a token."""


class NonFiniteError(DLTechniquesError, ArithmeticError):
    """A model computes NaN or infinities where an answer is to be chosen."""


class PresetError(DLTechniquesError, ValueError):
    """A preset is unknown, incomplete or does not fit the class that loads it."""


class VariantError(DLTechniquesError, ValueError):
    """A network variant is unknown, or its description is wrong."""


class CheckpointError(DLTechniquesError, ValueError):
    """A weight file is damaged, or its tensors do not fit the network."""


class DamagedFileError(PresetError, CheckpointError):
    """A file of a preset or checkpoint is damaged; the message names it."""


class FusionError(DLTechniquesError, ValueError):
    """A block cannot be reparameterized, or cannot be brought back to its training form."""


class ExportError(DLTechniquesError, ValueError):
    """A model cannot be exported as asked, or the exported file does not compute the same."""


class CompressionError(DLTechniquesError, ValueError):
    """A model cannot be quantized, pruned or distilled as asked."""


class TrainingError(DLTechniquesError, ValueError):
    """A stage cannot be trained as asked, or what is in its folder belongs to another one."""


class ServingError(DLTechniquesError, RuntimeError):
    """A service cannot be started as asked, or does not answer."""


class QueueFullError(ServingError):
    """As many questions wait as may; ask again later."""


class StoppedError(ServingError):
    """The service is starting or stopping and takes no questions, or ended one of them."""


class MissingExtraError(DLTechniquesError, ImportError):
    """An optional dependency is needed; the message names the extra to install."""


def install_hint(extra: str) -> str:
    """The command that installs an extra of this package.

    The distribution is on no index: it is installed from a checkout, whose folder is named where
    the package runs from one.

    Args:
        extra: a name of `[project.optional-dependencies]`, such as "vlm".

    Returns:
        Words that end a message.

    Example:
        >>> from dl_techniques.errors import install_hint
        >>> "[vlm]'" in install_hint("vlm")
        True
    """
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file():
        return f"pip install -e '{checkout}[{extra}]'"
    return f"pip install '.[{extra}]' in a checkout of dl_techniques"


def _readable(message: str) -> str:
    """A message of bounded length."""
    message = _LONG_WORD.sub(lambda word: shorten(word[0]), message)
    half = MAX_MESSAGE // 2
    return message if len(message) <= MAX_MESSAGE else f"{message[:half]} ... {message[-half:]}"
