"""/metrics counts what was answered, and /healthz tells whether it is."""

from __future__ import annotations

import re

import httpx
import pytest

from dl_techniques.serving.engine import Engine, EngineOptions
from dl_techniques.serving.http.app import ServiceOptions
from tests.serving.http.running import serving

pytestmark = pytest.mark.once


def numbers_of(client: httpx.Client) -> dict[str, float]:
    got = client.get("/metrics")
    assert got.headers["content-type"].startswith("text/plain")
    lines = re.findall(r"^(fastvlm:\S+) (\S+)$", got.text, flags=re.MULTILINE)
    return {name: float(value) for name, value in lines}


def test_what_was_answered_is_counted(client, ask):
    before = numbers_of(client)
    usage = [ask(max_tokens=6).json()["usage"], ask(n=2, seed=1).json()["usage"]]
    ask(temperature=-1)
    after = numbers_of(client)

    def more(name: str) -> float:
        return after[f"fastvlm:{name}"] - before.get(f"fastvlm:{name}", 0.0)

    assert more("generation_tokens_total") == sum(u["completion_tokens"] for u in usage)
    prompts = usage[0]["prompt_tokens"] + 2 * usage[1]["prompt_tokens"]
    assert more("prompt_tokens_total") == prompts
    assert more("e2e_request_latency_seconds_count") == 3
    assert more("time_to_first_token_seconds_count") == 3
    assert more("request_queue_time_seconds_count") == 3
    assert more("batch_size_count") == 3
    assert more('requests_refused_total{status="400"}') == 1
    ended = [n for n in after if n.startswith("fastvlm:request_success_total")]
    assert sum(after[n] - before.get(n, 0.0) for n in ended) == 3
    assert after["fastvlm:num_requests_waiting"] == 0
    assert "Why" not in client.get("/metrics").text


def test_health_follows_the_engine(model, client):
    assert client.get("/healthz").json() == {"status": "ok"}
    idle = Engine(model, EngineOptions(rows=1))
    with serving(idle, ServiceOptions()) as (url, _):
        for path in ("/healthz", "/v1/chat/completions"):
            body = {"messages": [{"role": "user", "content": "Why?"}]}
            got = httpx.get(url + path) if path == "/healthz" else httpx.post(url + path, json=body)
            assert got.status_code == 503 and got.json()["error"]["code"] == "not_ready"
            assert got.headers["retry-after"] == "5"
