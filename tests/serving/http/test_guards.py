"""Dangers of an open port: who may ask, how much, and how slowly."""

from __future__ import annotations

import json
import socket
import time
from contextlib import closing

import httpx
import pytest

from dl_techniques.serving.http import guards
from dl_techniques.serving.http.app import ServiceOptions
from dl_techniques.serving.http.guards import Guard
from tests.serving.http.running import serving

pytestmark = pytest.mark.once

BODY = {"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 3}
PATH = "/v1/chat/completions"
SLOW = 0.4


@pytest.fixture(scope="module")
def guarded(engine):
    """A server with a token, a name, a page that may ask, small bodies and little patience."""
    guard = Guard("s3cret", ("vision.example",), ("https://page.example",), max_body=50_000)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HEADER_SECONDS", "READER_SECONDS", "CHUNK_SECONDS"):
            patch.setattr(guards, name, SLOW)
        with serving(engine, ServiceOptions(name="tiny", guard=guard)) as (url, _):
            yield url


@pytest.fixture(scope="module")
def known(guarded):
    headers = {"Authorization": "Bearer s3cret"}
    with httpx.Client(base_url=guarded, headers=headers, timeout=30) as client:
        yield client


def code_of(response):
    return response.status_code, response.json()["error"]["code"]


def raw(url, data=b""):
    """An open connection that has sent some bytes."""
    host, port = url.removeprefix("http://").split(":")
    peer = socket.create_connection((host, int(port)), timeout=10)
    peer.sendall(data)
    return peer


def seconds_until_cut(peer):
    """How long it takes until the other side closes, whatever it says before."""
    start = time.perf_counter()
    try:
        while peer.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return time.perf_counter() - start


def test_the_token(guarded, known):
    assert known.post(PATH, json=BODY).status_code == 200
    for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "Basic s3cret"}):
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nothing"):
            got = httpx.get(guarded + path, headers=headers)
            assert code_of(got) == (401, "invalid_api_key")
            assert got.headers["www-authenticate"] == "Bearer"
    assert code_of(httpx.post(guarded + PATH, json=BODY)) == (401, "invalid_api_key")
    assert httpx.get(guarded + "/healthz").status_code == 200
    odd = httpx.get(guarded + "/v1/models", headers=[(b"authorization", b"Bearer \xe9")])
    assert code_of(odd) == (401, "invalid_api_key")


def test_names_of_the_host(known):
    for host in ("localhost:1", "127.0.0.1", "[::1]:80", "192.168.1.7", "vision.example:443"):
        assert known.get("/v1/models", headers={"host": host}).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "vision.example.evil", "", "a b"):
        assert code_of(known.get("/v1/models", headers={"host": host}))[0] == 400


def test_pages_of_other_origins(known):
    own = str(known.base_url).rstrip("/")
    for origin in (own, "https://page.example"):
        assert known.post(PATH, json=BODY, headers={"origin": origin}).status_code == 200
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", f"{own}.evil"):
        got = known.post(PATH, json=BODY, headers={"origin": origin})
        assert code_of(got) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in got.headers


def test_cors_for_those_who_asked_for_it(known, client):
    asked = {"origin": "https://page.example", "access-control-request-method": "POST"}
    got = known.options(PATH, headers=asked)
    assert got.headers["access-control-allow-origin"] == "https://page.example"
    assert known.get("/v1/models", headers={"origin": "https://page.example"}).headers[
        "access-control-allow-origin"
    ]
    plain = client.options(PATH, headers={"origin": str(client.base_url).rstrip("/")})
    assert "access-control-allow-origin" not in plain.headers


def test_large_bodies(known):
    large = {**BODY, "user": "x" * 60_000}
    assert code_of(known.post(PATH, json=large)) == (413, "request_too_large")

    def parts():
        for _ in range(80):
            yield b" " * 1000

    kind = {"content-type": "application/json"}
    assert code_of(known.post(PATH, content=parts(), headers=kind)) == (413, "request_too_large")
    assert known.post(PATH, json=BODY).status_code == 200


def test_large_headers(guarded):
    with closing(raw(guarded, b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 200_000)) as peer:
        assert peer.recv(65536).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /healthz HT",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
    ],
)
def test_silent_connections_are_cut(guarded, sent):
    with closing(raw(guarded, sent)) as peer:
        # What follows an answered request, uvicorn itself cuts after 5 s.
        assert SLOW / 2 < seconds_until_cut(peer) < 8


def test_half_a_body_is_refused(guarded):
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s3cret\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    with closing(raw(guarded, head.encode())) as peer:
        assert peer.recv(65536).startswith(b"HTTP/1.1 408")


def test_a_reader_that_does_not_read_is_cut(engine, monkeypatch):
    monkeypatch.setattr(guards, "READER_SECONDS", SLOW)
    lost = []

    class Seen(guards.Patient):
        def connection_lost(self, exc):
            lost.append(time.perf_counter())
            super().connection_lost(exc)

    monkeypatch.setattr("dl_techniques.serving.http.listening.Patient", Seen)
    with serving(engine, ServiceOptions(name="tiny")) as (url, server):
        app = server.config.loaded_app

        async def endless(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while not lost:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})

        assert app is not None
        monkeypatch.setattr(server.config, "loaded_app", endless)
        with closing(raw(url, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")):
            start = time.perf_counter()
            while not lost and time.perf_counter() < start + 8:
                time.sleep(0.02)
        assert lost and lost[0] - start < 6


def test_many_silent_connections_harm_nobody(guarded, known):
    peers = [raw(guarded, b"GET / HT") for _ in range(200)]
    start = time.perf_counter()
    assert known.post(PATH, json=BODY).status_code == 200
    assert time.perf_counter() - start < 5
    for peer in peers:
        with closing(peer):
            seconds_until_cut(peer)
    assert time.perf_counter() - start < 15


def test_a_client_that_leaves_ends_its_answer(engine, address):
    """Piece by piece, and at once."""
    for stream in (True, False):
        body = json.dumps({**BODY, "max_tokens": 150, "stream": stream}).encode()
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with closing(raw(address, head.encode() + body)):
            until = time.perf_counter() + 10
            while not engine.running and time.perf_counter() < until:
                time.sleep(0.001)
            replies = [place.reply for place in engine._batch._taken()]
        while engine.running and time.perf_counter() < until:
            time.sleep(0.005)
        assert [r.finish_reason for r in replies if r is not None] == ["cancelled"]
