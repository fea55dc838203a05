"""What stands between the port and the app: limits, token, host and origin, and who is too slow.

uvicorn waits for ever for the rest of a header or a body, and for readers that do not read; it
takes bodies of any size, any Host and any Origin.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from uvicorn.protocols.http.h11_impl import H11Protocol

from dl_techniques.errors import shorten
from dl_techniques.serving.http.refusals import Refusal

HEADER_SECONDS = 10.0
READER_SECONDS = 12.0
CHUNK_SECONDS = 10.0
BODY_SECONDS = 30.0
OPEN_PATHS = ("/healthz", "/")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Patient(H11Protocol):
    """HTTP/1.1 that waits so long for a header, and so long for a reader, and no longer.

    h11 itself refuses headers above 64 KiB.
    """

    _header_timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_header()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_header()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clocks()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        super().handle_websocket_upgrade(event)
        self._stop_clocks()  # from here on another protocol has the connection

    def _stop_clocks(self) -> None:
        for timer in (self._header_timer, self._reader_timer):
            if timer is not None:
                timer.cancel()
        self._header_timer = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader_timer = self.loop.call_later(READER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reader_timer is not None:
            self._reader_timer.cancel()

    def _await_header(self) -> None:
        """Starts the clock where no request runs, unless it runs already."""
        if self.transport.get_protocol() is not self:
            return
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy and self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
        elif not busy and self._header_timer is None:
            self._header_timer = self.loop.call_later(HEADER_SECONDS, self._late)

    def _late(self) -> None:
        self._header_timer = None
        busy = self.cycle is not None and not self.cycle.response_complete
        if not busy and not self.transport.is_closing():
            self.transport.abort()


@dataclass(frozen=True)
class Guard:
    """Who may ask.

    Attributes:
        token: every path but `OPEN_PATHS` wants it; None for no token.
        hosts: names by which the service may be addressed, beside localhost and IP addresses.
        origins: pages of these origins may ask, beside the service's own.
        max_body: most bytes of a body.
    """

    token: str | None = None
    hosts: Collection[str] = ()
    origins: Collection[str] = ()
    max_body: int = 20 * 2**20

    def check(self, scope: Scope) -> None:
        """Refuses what a header shows to be wrong.

        Raises:
            Refusal: 400, 401, 403, 413 or 415.
        """
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        self._check_host(headers.get("host", ""))
        origin = headers.get("origin")
        if origin is not None and not self._known(origin, headers.get("host", "")):
            message = f"pages of {shorten(origin)} may not ask here; allow them by --allow-origin"
            raise Refusal(403, "origin_not_allowed", message)
        if scope["type"] == "websocket":
            return  # its token comes with its first message: a page cannot send headers
        if scope["path"] not in OPEN_PATHS and scope["method"] != "OPTIONS":
            self._check_token(headers.get("authorization", ""))
        if scope["method"] == "POST":
            self._check_body(headers)

    def knows(self, token: str) -> bool:
        """Whether a token is the right one, or none is wanted."""
        if self.token is None:
            return True
        return hmac.compare_digest(token.strip().encode(), self.token.encode())

    def _check_host(self, host: str) -> None:
        name = urlsplit(f"//{host}").hostname or ""
        try:
            ipaddress.ip_address(name)
        except ValueError:
            if name != "localhost" and name not in self.hosts:
                message = f"Host is {shorten(host)!r}; allow a name by --allow-host"
                raise Refusal(400, "host_not_allowed", message) from None

    def _known(self, origin: str, host: str) -> bool:
        own = urlsplit(origin).netloc == host and origin.startswith(("http://", "https://"))
        return own or origin in self.origins

    def _check_token(self, given: str) -> None:
        if self.token is None:
            return
        kind, _, token = given.partition(" ")
        if kind.lower() != "bearer" or not self.knows(token):
            message = "the token is missing or wrong; send `Authorization: Bearer TOKEN`"
            raise Refusal(401, "invalid_api_key", message)

    def _check_body(self, headers: dict[str, str]) -> None:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            message = f"Content-Type must be application/json, got {shorten(kind)!r}"
            raise Refusal(415, "unsupported_media_type", message)
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.max_body:
            raise self.too_large()

    def too_large(self) -> Refusal:
        """The refusal of a large body."""
        return Refusal(413, "request_too_large", f"at most {self.max_body} bytes are taken")


class Gate:
    """ASGI middleware: checks a request, reads its body whole, and names it.

    Args:
        app: what answers.
        guard: who may ask.
        finished: called with the scope, status and seconds of every request that ended.
    """

    def __init__(
        self, app: Any, guard: Guard, finished: Callable[[Scope, int, float], None]
    ) -> None:
        self.app = app
        self.guard = guard
        self.finished = finished

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "websocket":
            await self._open(scope, receive, send)
            return
        name = uuid4().hex[:16]
        scope.setdefault("state", {}).update(request_id=name, note={})
        start, status = time.perf_counter(), 0

        async def named(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = [(b"x-request-id", name.encode()), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        try:
            try:
                self.guard.check(scope)
                body = await self._body(receive)
            except Refusal as refusal:
                await refusal.response()(scope, receive, named)  # type: ignore[arg-type]
                return
            if body is not None:
                await self.app(scope, _replayed(body, receive), named)
        finally:
            self.finished(scope, status, time.perf_counter() - start)

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a WebSocket in, or refuses it before it is one: 403."""
        try:
            self.guard.check(scope)
        except Refusal:
            await send({"type": "websocket.close", "code": 1008})
            return
        await self.app(scope, receive, send)

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body; None if the client went away meanwhile."""
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    async with asyncio.timeout(CHUNK_SECONDS):
                        message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    if len(body) > self.guard.max_body:
                        raise self.guard.too_large()
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            late = f"the body did not come within {BODY_SECONDS:.0f} s"
            raise Refusal(408, "request_timeout", late) from None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives the body once, and then what comes."""
    left = [body]

    async def replay() -> dict[str, Any]:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return replay
