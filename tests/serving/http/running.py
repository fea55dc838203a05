"""A server in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dl_techniques.serving.http.app import ServiceOptions, create_app
from dl_techniques.serving.http.listening import make_server, open_port


class Shared:
    """An engine that is not closed by one of its servers."""

    def close(self, seconds: float) -> None:
        pass


@contextmanager
def serving(
    engine: Any, options: ServiceOptions, owned: bool = False, **more: Any
) -> Iterator[tuple[str, Any]]:
    """A running server's address, and the server; the engine outlives it unless it is owned."""
    socket = open_port("127.0.0.1", 0)
    server = make_server(create_app(engine, options), engine if owned else Shared(), **more)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}", server
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
