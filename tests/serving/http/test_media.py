"""Addresses of pictures: https of allowed domains, public addresses, no redirects, bounded."""

from __future__ import annotations

import http.client
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from dl_techniques.serving.http import media
from dl_techniques.serving.http.media import MediaLimits, fetch, is_public, read_picture
from dl_techniques.serving.http.refusals import Refusal
from tests.models.vlm.fast_vlm.small_model import pictures
from tests.serving.http.pictures_in_text import data_uri

pytestmark = pytest.mark.once

PICTURE = pictures(1, 8)[0]
LIMITS = MediaLimits(domains=("pictures.example",), max_bytes=100_000)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "224.0.0.1", "::1", "fe80::1", "fc00::1", "::ffff:10.0.0.1", "::ffff:8.8.8.8",
        "2002:a00:1::1", "64:ff9b::a00:1", "2001::1", "fe80::1%eth0", "::",
    ],
)  # fmt: skip
def test_addresses_that_lead_inside(address, monkeypatch):
    assert not is_public(address)
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda *a, **k: [(0, 0, 0, "", ("8.8.8.8", 443)), (0, 0, 0, "", (address, 443))],
    )
    with pytest.raises(Refusal, match="not a public one") as caught:
        read_picture("https://pictures.example/a.png", "p", LIMITS)
    assert caught.value.code == "invalid_image"


def test_public_addresses():
    assert is_public("93.184.216.34") and is_public("2606:4700::1111")


@pytest.mark.parametrize(
    "url",
    [
        "http://pictures.example/a.png",
        "https://other.example/a.png",
        "https://pictures.example.evil/a.png",
        "https://user@pictures.example/a.png",
        "https://evil.example#pictures.example",
        "ftp://pictures.example/a",
        "//pictures.example/a",
    ],
)
def test_addresses_that_were_not_allowed(url):
    with pytest.raises(Refusal, match="https addresses of .'pictures.example'., and data:") as e:
        read_picture(url, "p", LIMITS)
    assert e.value.code == "image_url_not_allowed"


@pytest.fixture(scope="module")
def site():
    """A plain server that stands for one on the internet."""
    from dl_techniques.data.data_uri import decode_data_uri

    picture = decode_data_uri(data_uri(PICTURE))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            moved = self.path == "/moved"
            self.send_response(302 if moved else 200)
            if moved:
                self.send_header("Location", "http://127.0.0.1/")
            self.end_headers()
            self.wfile.write(b"x" * 200_000 if self.path == "/large" else picture)

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@pytest.fixture
def reached(site, monkeypatch):
    """Has `fetch` connect to the site, after all its checks."""
    seen = []

    def connection(host, port, address):
        seen.append((host, port, address))
        return http.client.HTTPConnection("127.0.0.1", site, timeout=5)

    found = [(0, 0, 0, "", ("93.184.216.34", 443))]
    monkeypatch.setattr(media.socket, "getaddrinfo", lambda *a, **k: found)
    real, create = socket.create_connection, socket.create_connection
    assert real is create
    monkeypatch.setattr(media, "fetch", lambda url, most: fetch(url, most, connection))
    # http.client resolves too: it gets the real function back.
    monkeypatch.setattr(socket, "create_connection", lambda a, *r, **k: _connect(a[1]))
    return seen


def _connect(port):
    peer = socket.socket()
    peer.connect(("127.0.0.1", port))
    return peer


def test_a_picture_is_fetched_from_the_address_that_was_checked(reached):
    picture, size = read_picture("https://pictures.example/a.png?b=c", "p", LIMITS)
    assert (picture == PICTURE).all() and size > 100
    assert reached == [("pictures.example", 443, "93.184.216.34")]


@pytest.mark.parametrize(("path", "what"), [("moved", "status 302"), ("large", "more than 100000")])
def test_redirects_and_large_files(reached, path, what):
    with pytest.raises(Refusal, match=what):
        read_picture(f"https://pictures.example/{path}", "p", LIMITS)
