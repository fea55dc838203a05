"""Which combinations and words are never trained on: a fixed rule, the same everywhere."""

from __future__ import annotations

import hashlib

HELD_OUT_PERCENT = 15
SPLITS = ("train", "test")


def bucket(*parts: str) -> int:
    """Returns the fixed bucket, 0 to 99, of a combination of strings.

    Example:
        >>> 0 <= bucket("red", "circle") < 100
        True
    """
    digest = hashlib.sha1("|".join(parts).encode("utf-8")).digest()
    return int.from_bytes(digest[:4], "big") % 100


def held_out(*parts: str, percent: int = HELD_OUT_PERCENT) -> bool:
    """Says whether a combination belongs to the test split alone."""
    return bucket(*parts) < percent


def split_id(split: str) -> int:
    """Returns 0 for "train" and 1 for "test".

    Raises:
        ValueError: on any other name.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is unknown, expected one of {SPLITS}")
    return SPLITS.index(split)
