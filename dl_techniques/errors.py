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

from pathlib import Path


class DLTechniquesError(Exception):
    """Root of all errors that a user's input can cause."""


class ImageError(DLTechniquesError, ValueError):
    """A picture cannot be read or is not a picture."""


class PromptError(DLTechniquesError, ValueError):
    """A question, a conversation or its pictures do not form a valid prompt."""


class PresetError(DLTechniquesError, ValueError):
    """A preset is unknown, incomplete or does not fit the class that loads it."""


class VariantError(DLTechniquesError, ValueError):
    """A network variant is unknown, or its description is wrong."""


class CheckpointError(DLTechniquesError, ValueError):
    """A weight file is damaged, or its tensors do not fit the network."""


class FusionError(DLTechniquesError, ValueError):
    """A block cannot be reparameterized, or cannot be brought back to its training form."""


class ExportError(DLTechniquesError, ValueError):
    """A model cannot be exported as asked, or the exported file does not compute the same."""


class CompressionError(DLTechniquesError, ValueError):
    """A model cannot be quantized, pruned or distilled as asked."""


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
