"""The load tool asks, counts and tells what failed."""

from __future__ import annotations

import asyncio
import os

import pytest

from dl_techniques.serving.engine import Engine, EngineOptions
from dl_techniques.serving.http.app import ServiceOptions
from tests.models.vlm.fast_vlm.small_model import make_model
from tests.serving.http.running import serving
from tools.load_server.__main__ import HEADER, Server, cpu_seconds, memory, parse, rates, row
from tools.load_server.clients import Seen, bodies, load, mixed_bodies

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def server():
    engine = Engine(make_model(), EngineOptions(rows=2, piece=32, waiting=4))
    engine.start()
    assert engine.wait_until_ready(120)
    with serving(engine, ServiceOptions(), owned=True, drain=0.1) as (url, _):
        yield Server(url, os.getpid(), 0.0)


def test_clients_ask_until_there_is_enough(server):
    seen = asyncio.run(load(server.address, bodies(40, 3), 3, lambda begun: begun < 10))
    assert len(seen.seconds) == 10 and seen.failed == {}
    assert 10 <= seen.tokens <= 30 and seen.elapsed > max(seen.seconds)


def test_refusals_are_counted(server):
    wrong = iter(lambda: {"messages": []}, None)
    seen = asyncio.run(load(server.address, wrong, 2, lambda begun: begun < 4))
    assert seen.failed == {400: 4} and seen.seconds == []
    assert row(2, seen, 0.0)[-1] == "4 x 400"


def test_lines_of_the_table(server):
    options, others = parse(
        ["--clients", "1", "2", "--seconds", "0.3", "--mixed", "--tokens", "4", "--preset", "x"]
    )
    assert others == ["--preset", "x"]
    lines = list(rates(server, options))
    assert [line[0] for line in lines] == ["1", "2"]
    assert all(len(line) == len(HEADER) and float(line[1]) > 0 for line in lines)
    options.requests, options.clients = 20, [2]
    assert [line[0] for line in memory(server, options)] == ["2", "18"]


def test_requests_differ():
    made = mixed_bodies(16, 8)
    few = [next(made) for _ in range(20)]
    assert {len(body["messages"][0]["content"]) for body in few} == {1, 2, 3}
    assert len({body["max_tokens"] for body in few}) > 5
    assert Seen([0.1, 0.2, 0.3]).percentile(50) == pytest.approx(200)
    assert cpu_seconds(os.getpid()) > 0
