"""Texts that a tokenizer can read: str, and nothing that UTF-8 cannot write."""

from __future__ import annotations

from typing import Any

import numpy as np

from dl_techniques.errors import PromptError


def is_text(value: Any) -> bool:
    """Whether a value is one text and not a list of them, right or wrong."""
    return isinstance(value, (str, bytes))


def check_text(value: Any, place: str) -> str:
    """A text as a plain str.

    Args:
        value: a str.
        place: where it stands, as the error is to call it.

    Raises:
        PromptError: anything else, or half of a surrogate pair, which stands for bytes that could
            not be read.

    Example:
        >>> check_text("why?", "'prompts'[0]")
        'why?'
    """
    if not isinstance(value, str):
        hint = "; decode it first" if isinstance(value, (bytes, bytearray)) else ""
        raise PromptError(f"{place} must be a str, got {type(value).__name__} {value!r:.80}{hint}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"{place} cannot be written as UTF-8: half of a surrogate pair, "
            f"{value[error.start]!r}, at character {error.start} of {value!r:.80}; read the text "
            "anew with its right encoding"
        ) from error
    return str(value)


def check_numpy_text(value: Any, place: str) -> str:
    """`check_text`, with NumPy's bytes read as UTF-8.

    They are the only texts of a `tf.data.Dataset`; the encoding of Python's is anyone's guess.

    Raises:
        PromptError: as `check_text`, or bytes that are no UTF-8.
    """
    if not isinstance(value, np.bytes_):
        return check_text(value, place)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{place} is no UTF-8: byte {value[error.start]:#04x} at {error.start} of "
            f"{bytes(value)!r:.80}; decode it with its own encoding"
        ) from error


def list_of_texts(values: np.ndarray) -> Any:
    """An array's entries in lists; its bytes stay NumPy's, for `check_numpy_text`."""
    return _with_numpy_bytes(values.tolist())


def _with_numpy_bytes(values: Any) -> Any:
    if isinstance(values, list):
        return [_with_numpy_bytes(value) for value in values]
    return np.bytes_(values) if isinstance(values, bytes) else values
