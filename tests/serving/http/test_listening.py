"""Ports, addresses, and the end of a server."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from dl_techniques.errors import ServingError
from dl_techniques.serving.engine import Engine, EngineOptions
from dl_techniques.serving.http.app import ServiceOptions
from dl_techniques.serving.http.listening import check_exposed, is_loopback, open_port
from tests.serving.http.running import serving

pytestmark = pytest.mark.once


def test_a_port_that_is_taken():
    with open_port("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServingError, match=f"port {port} is taken; name another one by --port"):
            open_port("127.0.0.1", port)


def test_addresses_that_are_none():
    for host in ("no such host", "203.0.113.9"):
        with pytest.raises(ServingError, match="--host"):
            open_port(host, 0)


def test_other_machines_want_a_token():
    assert is_loopback("127.0.0.1") and not is_loopback("192.168.0.7")
    check_exposed("127.0.0.1", None)
    check_exposed("0.0.0.0", "token")
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.org"):
        with pytest.raises(ServingError, match="FASTVLM_TOKEN"):
            check_exposed(host, None)


def test_the_end_of_a_server_is_told_to_open_streams(model):
    engine = Engine(model, EngineOptions(rows=2, piece=16))
    engine.start()
    assert engine.wait_until_ready(120)
    body = {
        "messages": [{"role": "user", "content": "Why?"}],
        "max_tokens": 150,
        "stream": True,
        "ignore_eos": None,
    }
    slow = engine._batch._rows.step

    def step(*args):
        time.sleep(0.05)
        return slow(*args)

    engine._batch._rows.step = step
    lines: list[str] = []

    def read(url):
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as got:
            lines.extend(line for line in got.iter_lines() if line)

    with serving(engine, ServiceOptions(), owned=True, drain=0.3) as (url, server):
        reader = threading.Thread(target=read, args=(url,))
        reader.start()
        while len(lines) < 3:
            time.sleep(0.01)
        start = time.perf_counter()
        server.should_exit = True
        reader.join(10)
    assert time.perf_counter() - start < 5
    assert not engine.alive
    assert '"code": "not_ready"' in lines[-1] and "stops" in lines[-1]
