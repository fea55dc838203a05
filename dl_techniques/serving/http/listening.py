"""A port, the app behind it, and an orderly end."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import threading
from collections.abc import Sequence
from typing import Any

import uvicorn

from dl_techniques.errors import ServingError
from dl_techniques.serving.engine import Engine
from dl_techniques.serving.http.frames import MOST_BYTES
from dl_techniques.serving.http.guards import Patient

LOG = logging.getLogger(__name__)
DRAIN_SECONDS = 10.0


class Server(uvicorn.Server):
    """uvicorn, whose end is the engine's as well: running answers end, or are told.

    Args:
        config: of uvicorn.
        engine: closed when the server ends.
        drain: seconds that running answers are given.
    """

    def __init__(
        self, config: uvicorn.Config, engine: Engine, drain: float = DRAIN_SECONDS
    ) -> None:
        super().__init__(config)
        self._engine = engine
        self._drain = drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes no more requests, and waits for those that run."""
        ending = asyncio.create_task(asyncio.to_thread(self._engine.close, self._drain))
        await super().shutdown(sockets)
        await ending


def make_server(app: Any, engine: Engine, **more: Any) -> Server:
    """A server that is not started yet.

    Args:
        app: of `create_app`.
        engine: of the app.
        **more: `drain`, and what else `uvicorn.Config` takes, such as `ssl_certfile`.
    """
    drain = more.pop("drain", DRAIN_SECONDS)
    config = uvicorn.Config(
        app,
        http=Patient,
        ws="websockets-sansio",
        ws_max_size=MOST_BYTES,
        ws_per_message_deflate=False,
        ws_max_queue=2,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=64 * 1024,
        timeout_graceful_shutdown=int(drain) + 1,
        backlog=256,
        **more,
    )
    return Server(config, engine, drain)


def open_port(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ServingError: the port is taken, or the address is none of this machine; says what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        raise ServingError(f"--host {host} is no address: {error.strerror}") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            mac = " (macOS uses 5000 itself, for AirPlay)" if port == 5000 else ""
            reason = f"port {port} is taken{mac}; name another one by --port"
        elif error.errno == errno.EACCES:
            reason = f"port {port} may not be used; name one above 1023 by --port"
        else:
            reason = f"{host} cannot be listened on: {error.strerror}; see --host"
        raise ServingError(reason) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    Example:
        >>> [is_loopback(host) for host in ("localhost", "127.0.0.2", "::1", "0.0.0.0")]
        [True, True, True, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_exposed(host: str, token: str | None) -> None:
    """Refuses to offer a model to a network without a token.

    Raises:
        ServingError: says how to give one.
    """
    if not is_loopback(host) and token is None:
        raise ServingError(
            f"--host {host} is reached by other machines, which wants a token: set FASTVLM_TOKEN, "
            "or name a file by --token-file"
        )


def run(server: Server, sockets: Sequence[socket.socket], engine: Engine) -> None:
    """Serves until a signal comes.

    Args:
        server: of `make_server`.
        sockets: of `open_port`.
        engine: not started yet.
    """
    engine.start()
    threading.Thread(target=_announce, args=(engine,), daemon=True).start()
    server.run(sockets=list(sockets))


def _announce(engine: Engine) -> None:
    if engine.wait_until_ready():
        LOG.info("ready: %d rows of %d tokens", engine.options.rows, engine.context)
    else:
        LOG.error("not ready: the engine ended")
