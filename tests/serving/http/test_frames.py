"""Frames over a WebSocket: the newest wins, errors end nothing, and who has no token gets out."""

from __future__ import annotations

import json
import re
import time
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from dl_techniques.data.data_uri import decode_data_uri
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings
from dl_techniques.serving.http import frames
from dl_techniques.serving.http.app import ServiceOptions
from dl_techniques.serving.http.guards import Guard
from tests.models.vlm.fast_vlm.small_model import pictures
from tests.serving.http.pictures_in_text import data_uri
from tests.serving.http.running import serving

pytestmark = pytest.mark.once

PICTURES = pictures(3, 41)
FRAMES = [decode_data_uri(data_uri(picture)) for picture in PICTURES]


@contextmanager
def client(address, **wishes):
    """A connection that has said hello, and what the server said to it."""
    url = address.replace("http", "ws", 1) + "/ws"
    with connect(url, subprotocols=["fastvlm.v1"]) as socket:
        socket.send(json.dumps({"type": "hello", "max_tokens": 5, **wishes}))
        yield socket, json.loads(socket.recv(10))


def until_done(socket):
    """The messages up to the end of a frame."""
    messages = []
    while not messages or messages[-1]["type"] not in ("done", "error"):
        messages.append(json.loads(socket.recv(20)))
    return messages


def answer(model, picture, prompt="describe the picture.", most=5):
    settings = RowSettings(max_new_tokens=most)
    return model.generate({"prompts": prompt, "images": picture}, settings=settings)


def test_frames_are_answered_as_generate_does(model, address):
    with client(address) as (socket, ready):
        assert ready["type"] == "ready" and ready["model"] == "tiny"
        assert ready["image_size"] == [32, 32] and ready["max_frame_bytes"] == 2**20
        assert socket.subprotocol == "fastvlm.v1"
        for i in (0, 1):
            socket.send(FRAMES[i])
            messages = until_done(socket)
            assert [m["type"] for m in messages][0] == "start"
            done = messages[-1]
            assert done["type"] == "done" and done["id"] == i + 1
            assert done["text"] == answer(model, PICTURES[i])
            assert "".join(m["text"] for m in messages if m["type"] == "delta") == done["text"]
            assert 0 < done["ttft_ms"] <= done["total_ms"] and done["dropped"] == 0
        socket.send(json.dumps({"type": "config", "prompt": "what <image> is this?"}))
        socket.send(FRAMES[2])
        assert until_done(socket)[-1]["type"] == "done"
        socket.send(json.dumps({"type": "config", "prompt": "what is this?", "max_tokens": 9}))
        socket.send(FRAMES[2])
        assert until_done(socket)[-1]["text"] == answer(model, PICTURES[2], "what is this?", 9)


def test_the_newest_frame_wins(model, address, engine, monkeypatch):
    step = engine._batch._rows.step
    monkeypatch.setattr(engine._batch._rows, "step", lambda *args: time.sleep(0.03) or step(*args))
    with client(address, max_tokens=8) as (socket, _):
        socket.send(FRAMES[0])
        assert json.loads(socket.recv(10))["type"] == "start"
        for i in (1, 1, 1, 2):
            socket.send(FRAMES[i])
        first, last = until_done(socket)[-1], until_done(socket)[-1]
    assert (first["id"], last["id"], last["dropped"]) == (1, 5, 3)
    assert last["text"] == answer(model, PICTURES[2], most=8)


def test_errors_end_no_connection(model, address):
    bomb = decode_data_uri(data_uri(np.zeros((4100, 4000), "uint8")))
    with client(address) as (socket, _):
        for data, code in ((b"no picture", "invalid_image"), (bomb, "image_too_large")):
            socket.send(data)
            error = until_done(socket)[-1]
            assert (error["type"], error["code"]) == ("error", code)
        for text in ("{", "[]", '{"type": "dance"}', '{"type": "config", "max_tokens": 0}'):
            socket.send(text)
            assert until_done(socket)[-1]["code"] == "invalid_message"
        socket.send(FRAMES[0])
        assert until_done(socket)[-1]["text"] == answer(model, PICTURES[0])


def test_cancelling_ends_a_frame(address, engine, monkeypatch):
    step = engine._batch._rows.step
    monkeypatch.setattr(engine._batch._rows, "step", lambda *args: time.sleep(0.03) or step(*args))
    with client(address, max_tokens=100) as (socket, _):
        socket.send(FRAMES[0])
        assert json.loads(socket.recv(10))["type"] == "start"
        socket.send('{"type": "cancel"}')
        done = until_done(socket)[-1]
        assert done["finish_reason"] == "cancelled" and done["completion_tokens"] < 50


def test_who_says_no_hello_is_shown_out(engine, monkeypatch):
    monkeypatch.setattr(frames, "HELLO_SECONDS", 0.3)
    with serving(engine, ServiceOptions(guard=Guard("s3cret"))) as (url, _):
        with client(url, token="s3cret") as (_, ready):
            assert ready["type"] == "ready"
        for hello in ('{"type": "hello"}', '{"type": "hello", "token": "other"}', "{", b"x", None):
            with connect(url.replace("http", "ws", 1) + "/ws") as socket:
                if hello is not None:
                    socket.send(hello)
                with pytest.raises(ConnectionClosed) as caught:
                    socket.recv(5)
                assert caught.value.rcvd.code == 1008


def test_pages_of_other_origins_do_not_get_in(address):
    url = address.replace("http", "ws", 1) + "/ws"
    with pytest.raises(InvalidStatus) as caught, connect(url, origin="https://evil.example"):
        pass
    assert caught.value.response.status_code == 403
    with connect(url, origin=address):
        pass


def test_a_client_that_leaves_is_no_error(address, caplog):
    with client(address, max_tokens=50) as (socket, _):
        socket.send(FRAMES[0])
        assert json.loads(socket.recv(10))["type"] == "start"
    with client(address) as (socket, _):
        socket.send(FRAMES[1])
        assert until_done(socket)[-1]["type"] == "done"
    assert "Traceback" not in caplog.text and "Exception" not in caplog.text


def test_large_messages_end_the_connection(address, caplog):
    with client(address) as (socket, _):
        socket.send(b"x" * (2**20 + 1))
        with pytest.raises(ConnectionClosed) as caught:
            socket.recv(10)
        assert caught.value.rcvd.code == 1009
    assert "Traceback" not in caplog.text


def test_dead_peers_are_found(engine):
    with serving(engine, ServiceOptions()) as (_, server):
        assert (server.config.ws_ping_interval, server.config.ws_ping_timeout) == (20, 20)
        assert server.config.ws_per_message_deflate is False


def test_a_quiet_client_stays(engine, monkeypatch):
    monkeypatch.setattr("dl_techniques.serving.http.guards.HEADER_SECONDS", 0.2)
    with serving(engine, ServiceOptions()) as (url, _), client(url) as (socket, _):
        time.sleep(0.6)
        socket.send(FRAMES[0])
        assert until_done(socket)[-1]["type"] == "done"


def test_the_page(address):
    got = httpx.get(address + "/")
    assert got.status_code == 200 and got.headers["content-type"].startswith("text/html")
    policy = got.headers["content-security-policy"]
    nonce = re.search(r"script-src 'nonce-([^']+)'", policy)
    assert nonce is not None and f'<script nonce="{nonce[1]}">' in got.text
    assert "NONCE" not in got.text and "unsafe-inline" not in policy
    assert got.headers["permissions-policy"] == "camera=(self), microphone=()"
    assert not re.search(r'(?:src|href)="(?:https?:)?//', got.text)
    assert httpx.get(address + "/").headers["content-security-policy"] != policy
