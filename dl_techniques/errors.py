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


class DLTechniquesError(Exception):
    """Root of all errors that a user's input can cause."""


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


class FusionError(DLTechniquesError, ValueError):
    """A block cannot be reparameterized, or cannot be brought back to its training form."""


class ExportError(DLTechniquesError, ValueError):
    """A model cannot be exported as asked, or the exported file does not compute the same."""


class CompressionError(DLTechniquesError, ValueError):
    """A model cannot be quantized, pruned or distilled as asked."""


class MissingExtraError(DLTechniquesError, ImportError):
    """An optional dependency is needed; the message names the extra to install."""
