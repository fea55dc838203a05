"""Clients of a server: each sends its next request when the answer is there."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

PATH = "/v1/chat/completions"


@dataclass
class Seen:
    """What the clients saw.

    Attributes:
        seconds: of every answered request.
        tokens: of all answers together.
        failed: numbers of responses that were no answer, by status.
        elapsed: from the first request to the last answer.
    """

    seconds: list[float] = field(default_factory=list)
    tokens: int = 0
    failed: dict[int, int] = field(default_factory=dict)
    elapsed: float = 0.0

    def percentile(self, share: float) -> float:
        """Milliseconds that so many of 100 requests took at most."""
        return float(1000 * np.percentile(self.seconds, share)) if self.seconds else 0.0


def frame(seed: int, side: int = 320) -> str:
    """A JPEG that no other seed has, as a data URI: a cache of pictures must not help."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    file = io.BytesIO()
    small.resize((side, side)).save(file, "jpeg", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def bodies(side: int, tokens: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """Requests about one new frame each, without end."""
    for number in itertools.count(first):
        picture = {"type": "image_url", "image_url": {"url": frame(number, side)}}
        text = {"type": "text", "text": "describe the picture."}
        yield {"messages": [{"role": "user", "content": [picture, text]}], "max_tokens": tokens}


def mixed_bodies(side: int, tokens: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Requests of random lengths, limits and numbers of pictures, without end."""
    rng = np.random.default_rng(seed)
    for body in bodies(side, tokens):
        picture, text = body["messages"][0]["content"]
        text = {**text, "text": "what is this? " * int(rng.integers(1, 12))}
        shown = [picture] * int(rng.integers(0, 3))
        limit = int(rng.integers(1, 2 * tokens))
        yield {"messages": [{"role": "user", "content": [*shown, text]}], "max_tokens": limit}


class Connection:
    """One connection that stays open.

    Args:
        address: `http://host:port`.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON of one request."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        data = json.dumps(body).encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        status = int((await reader.readline()).split()[1])
        length, close = 0, False
        while (line := (await reader.readline()).strip().lower()) != b"":
            name, _, value = line.partition(b":")
            length = int(value) if name == b"content-length" else length
            close = close or line == b"connection: close"
        answer = json.loads(await reader.readexactly(length))
        if close:
            self.close()
        return status, answer

    def close(self) -> None:
        """Closes the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def load(
    address: str, requests: Iterator[dict[str, Any]], clients: int, more: Callable[[int], bool]
) -> Seen:
    """Has clients ask until there is enough.

    Args:
        address: of the server.
        requests: what is asked.
        clients: how many ask at once.
        more: takes the number of requests begun; whether another one is to follow.
    """
    seen, begun = Seen(), itertools.count()

    async def client() -> None:
        connection = Connection(address)
        try:
            while more(next(begun)):
                start = time.perf_counter()
                status, answer = await connection.post(next(requests))
                if status == 200:
                    seen.seconds.append(time.perf_counter() - start)
                    seen.tokens += answer["usage"]["completion_tokens"]
                else:
                    seen.failed[status] = seen.failed.get(status, 0) + 1
        finally:
            connection.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seen.elapsed = time.perf_counter() - start
    return seen
