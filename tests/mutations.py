"""Damaged copies of files: seeded, each in one place, as disks, downloads and hands damage them."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 7, 2**40, 0.5, -0.5, 1e30, float("inf"), float("nan"), "", "x",
    "7", "\u0000", [], [0], ["x"], [[]], {}, {"x": 1}, "x" * 3000,
)  # fmt: skip
"""What stands in a field instead of what should."""
SMALL = 4096
"""Structure is in the first bytes of most files: half of all damages are made there."""


def damage(path: Path, rng: random.Random) -> str:
    """Damages a file in one place.

    Args:
        path: rewritten.
        rng: decides where and how.

    Returns:
        What was done, in words.
    """
    data = path.read_bytes()
    ways: list[Callable[[bytes, random.Random], tuple[bytes, str]]] = [_flip, _cut, _overwrite]
    if path.suffix == ".json":
        ways = [_change_field] * 12 + ways
    elif path.suffix == ".safetensors":
        ways = [_change_header] * 9 + ways
    elif path.suffix == ".txt":
        ways = [_change_line] * 3 + ways
    changed, how = rng.choice(ways)(data, rng)
    path.write_bytes(changed)
    return f"{path.name}: {how}"


def _place(data: bytes, rng: random.Random) -> int:
    return rng.randrange(min(len(data), SMALL) if rng.random() < 0.5 else len(data))


def _flip(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    at, bit = _place(data, rng), 1 << rng.randrange(8)
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :], f"bit {bit} of byte {at}"


def _cut(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    at = _place(data, rng)
    return data[:at], f"cut at {at} of {len(data)}"


def _overwrite(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    at, length = _place(data, rng), rng.choice((1, 4, 8, 64, 512))
    filled = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    return (data[:at] + filled + data[at + length :])[: len(data)], f"{length} bytes at {at}"


def _change_line(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    other = rng.choice((b"", b"x", b"x y z", b"\xff\xfe", lines[at] * 2))
    return b"\n".join([*lines[:at], other, *lines[at + 1 :]]), f"line {at} is {other[:20]!r}"


def _change_field(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    document = json.loads(data)
    how = change_tree(document, rng)
    return json.dumps(document).encode(), how


def _change_header(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    how = change_tree(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :], f"header, {how}"


def change_tree(document: Any, rng: random.Random) -> str:
    """Changes, removes or renames one field of a JSON document; fields near the top more often."""
    place: Any = document
    names: list[str] = []
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        names.append(str(key))
        if not (isinstance(place[key], dict | list) and place[key]) or rng.random() < 0.15:
            break
        place = place[key]
    where = "/".join(names)
    if rng.random() < 0.15:
        del place[key]
        return f"without {where}"
    value = copy.deepcopy(rng.choice(VALUES))
    place[key] = value
    return f"{where} = {value!r:.40}"
