"""A real server on a free port, over the tiny engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from dl_techniques.serving.http.app import ServiceOptions
from tests.serving.http.running import serving


@pytest.fixture(scope="session")
def address(engine: Any) -> Iterator[str]:
    with serving(engine, ServiceOptions(name="tiny")) as (url, _):
        yield url


@pytest.fixture(scope="session")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def ask(client: httpx.Client) -> Callable[..., httpx.Response]:
    """Posts a conversation of one question, or other messages."""

    def post(content: Any = "Why?", **fields: Any) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 6, **fields}
        return client.post("/v1/chat/completions", json=body)

    return post
