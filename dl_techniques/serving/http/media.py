"""Pictures of a request: data URIs, and addresses of domains that were allowed.

An address is a way into the network that the server stands in. Only https, only named domains,
only public addresses; the connection goes to the address that was checked, redirects are not
followed, and size and time are bounded.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from dl_techniques.data.data_uri import decode_data_uri, is_data_uri
from dl_techniques.data.images import load_image
from dl_techniques.errors import ImageError, shorten
from dl_techniques.serving.http.refusals import Refusal

BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM")
FETCH_SECONDS = 10
PUBLIC_PARTS = ("2002::/16", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "::ffff:0:0/96")
"""Networks whose addresses may lead to a private one: 6to4, NAT64, Teredo, mapped IPv4."""


@dataclass(frozen=True)
class MediaLimits:
    """What pictures may be.

    Attributes:
        max_pixels: of a picture.
        max_bytes: of a picture that is fetched.
        domains: https addresses of these hosts are fetched; none by default.
    """

    max_pixels: int = 16_000_000
    max_bytes: int = 20 * 2**20
    domains: Collection[str] = ()


def read_picture(url: str, place: str, limits: MediaLimits) -> tuple[np.ndarray, int]:
    """A picture uint8[H, W, 3] and the bytes of its file.

    Args:
        url: data URI or address.
        place: of the picture in the body, for errors.
        limits: what is allowed.

    Raises:
        Refusal: 400, naming the place.
    """
    data = _bytes_of(url, place, limits)
    return decode_picture(data, place, limits), len(data)


def decode_picture(data: bytes, place: str, limits: MediaLimits) -> np.ndarray:
    """A picture uint8[H, W, 3] of the bytes of a file; its type is read from them.

    Args:
        data: of the file.
        place: for errors.
        limits: what is allowed.

    Raises:
        Refusal: 400, naming the place.
    """
    if not data.startswith(BEGINNINGS) and not (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        what = f"starts with {data[:12]!r}" if data else "is empty"
        message = f"{place}: the picture {what}; send JPEG, PNG, WebP, GIF or BMP"
        raise Refusal(400, "invalid_image", message, place)
    try:
        return load_image(data, max_pixels=limits.max_pixels)
    except ImageError as error:
        if "max_pixels=" in str(error):
            most = f"at most {limits.max_pixels} pixels"
            message = f"{place}: the picture is too large; {most} are taken"
            raise Refusal(400, "image_too_large", message, place) from error
        raise Refusal(400, "invalid_image", f"{place}: {error}", place) from error


def _bytes_of(url: str, place: str, limits: MediaLimits) -> bytes:
    if is_data_uri(url):
        try:
            return decode_data_uri(url)
        except ValueError as error:
            raise Refusal(400, "invalid_image", f"{place}: {error}", place) from error
    parts = urlsplit(url)
    if parts.scheme != "https" or parts.hostname not in limits.domains or parts.username:
        allowed = f"https addresses of {sorted(limits.domains)}, and " if limits.domains else ""
        message = f"{place}: {allowed}data: URIs are taken, got {shorten(url, 60)}"
        raise Refusal(400, "image_url_not_allowed", message, place)
    try:
        return fetch(url, limits.max_bytes)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = shorten(str(error) or type(error).__name__)
        message = f"{place}: the picture could not be fetched ({reason})"
        raise Refusal(400, "invalid_image", message, place) from error


def public_address(host: str, port: int) -> str:
    """An address of a host, if all of its addresses are public.

    Raises:
        OSError: the host is not known.
        ValueError: one of the addresses leads elsewhere.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not is_public(address):
            raise ValueError("its address is not a public one")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet.

    Example:
        >>> [is_public(a) for a in ("93.184.216.34", "10.0.0.1", "::ffff:10.0.0.1", "100.64.0.1")]
        [True, False, False, False]
    """
    ip = ipaddress.ip_address(address.split("%")[0])
    if ip.version == 6 and any(ip in ipaddress.ip_network(part) for part in PUBLIC_PARTS):
        return False
    return ip.is_global and not ip.is_multicast


class _Checked(http.client.HTTPSConnection):
    """Connects to an address that was checked, under the name of its host."""

    def __init__(self, host: str, port: int, address: str) -> None:
        self._context: Any = ssl.create_default_context()
        super().__init__(host, port, timeout=FETCH_SECONDS, context=self._context)
        self._address = address

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.host)


def fetch(url: str, max_bytes: int, connection: Any = _Checked) -> bytes:
    """The bytes at an https address.

    Args:
        url: whose host is allowed.
        max_bytes: more are refused.
        connection: makes the connection.

    Raises:
        OSError: no connection, or too slow.
        ValueError: no public address, no plain answer, or too much.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    until = time.monotonic() + FETCH_SECONDS
    peer = connection(host, port, public_address(host, port))
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        peer.request("GET", target, headers={"Accept": "image/*", "Accept-Encoding": "identity"})
        response = peer.getresponse()
        if response.status != 200:
            raise ValueError(f"status {response.status}; redirects are not followed")
        data = bytearray()
        while chunk := response.read1(65536):
            data += chunk
            if len(data) > max_bytes:
                raise ValueError(f"more than {max_bytes} bytes")
            if time.monotonic() > until:
                raise TimeoutError(f"longer than {FETCH_SECONDS} s")
        return bytes(data)
    finally:
        peer.close()
