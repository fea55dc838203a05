"""Merge rules out of a `.tiktoken` file, which keeps only the ranks of its tokens."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

from dl_techniques.errors import CheckpointError


def byte_symbols() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    table = {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [table[b] for b in range(256)]


def read_ranks(path: Path) -> dict[bytes, int]:
    """Token -> rank of a `.tiktoken` file.

    Raises:
        CheckpointError: a line is no token and its rank.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise CheckpointError(f"{path}: line {number} is no token and its rank") from error
    return ranks


def vocabulary_of(ranks: Mapping[bytes, int]) -> tuple[dict[str, int], list[str]]:
    """Vocabulary and merge rules, in the order of their ranks.

    A token was made by the merge of the two pieces that are left of its bytes when all merges of
    lower rank have been applied.

    Args:
        ranks: token -> rank; the 256 bytes among them.

    Example:
        >>> ranks = {bytes([b]): b for b in range(256)} | {b"ab": 256, b"abc": 257}
        >>> vocabulary_of(ranks)[1]
        ['a b', 'ab c']
    """
    symbols = byte_symbols()

    def written(token: bytes) -> str:
        return "".join(symbols[b] for b in token)

    vocabulary = {written(t): r for t, r in sorted(ranks.items(), key=lambda item: item[1])}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = _parts(token, rank, ranks)
            merges.append(f"{written(left)} {written(right)}")
    return vocabulary, merges


def _parts(token: bytes, rank: int, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two pieces whose merge is this token."""
    pieces = [token[i : i + 1] for i in range(len(token))]
    while len(pieces) > 2:
        joined = [ranks.get(a + b, rank) for a, b in zip(pieces, pieces[1:], strict=False)]
        best = min(range(len(joined)), key=joined.__getitem__)
        if joined[best] >= rank:
            raise CheckpointError(f"token {token!r} of rank {rank} cannot be made by merges")
        pieces[best : best + 2] = [pieces[best] + pieces[best + 1]]
    return pieces[0], pieces[1]
