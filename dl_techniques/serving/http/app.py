"""The app: paths, and what is told about each request."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.middleware.cors import CORSMiddleware

from dl_techniques.errors import shorten
from dl_techniques.serving.engine import Engine
from dl_techniques.serving.http.bodies import ChatRequest
from dl_techniques.serving.http.completions import Asked, Asker, chunks, completion
from dl_techniques.serving.http.counters import Counters
from dl_techniques.serving.http.frames import FrameService
from dl_techniques.serving.http.guards import Gate, Guard, Scope
from dl_techniques.serving.http.media import MediaLimits
from dl_techniques.serving.http.refusals import STATUSES, Refusal, documented, install_handlers
from dl_techniques.version import __version__

PAGE = Path(__file__).with_name("page.html")
LOG = logging.getLogger("dl_techniques.serving")
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@dataclass(frozen=True)
class ServiceOptions:
    """How a model is offered.

    Attributes:
        name: of the model, for clients.
        guard: who may ask.
        media: what pictures may be.
        seconds: answers end after so long, as they are.
        log_content: whether the log shows questions and answers.
    """

    name: str = "demo"
    guard: Guard = field(default_factory=Guard)
    media: MediaLimits = field(default_factory=MediaLimits)
    seconds: float = 120.0
    log_content: bool = False


def create_app(engine: Engine, options: ServiceOptions | None = None) -> Any:
    """An ASGI app that offers an engine's model.

    Args:
        engine: started, ready or not yet.
        options: how.

    Example:
        >>> app = create_app(engine)  # doctest: +SKIP
        >>> uvicorn.run(app, port=5000)  # doctest: +SKIP
    """
    options = options or ServiceOptions()
    service = _Service(engine, options)
    app = FastAPI(title="fastvlm", version=__version__, docs_url=None, redoc_url=None)
    install_handlers(app)
    errors = documented(400, 401, 403)
    app.add_api_route(
        "/v1/chat/completions",
        service.complete,
        methods=["POST"],
        responses=documented(*(set(STATUSES) - {405})),
        response_model=None,
        summary="Answer a conversation about pictures",
    )
    app.add_api_route("/v1/models", service.models, responses=errors, response_model=None)
    app.add_api_route(
        "/v1/models/{name:path}",
        service.model,
        responses=documented(400, 401, 403, 404),
        response_model=None,
    )
    app.add_api_route(
        "/healthz",
        service.health,
        responses=documented(400, 403, 503),
        response_model=None,
    )
    app.add_api_route("/metrics", service.metrics, responses=errors, response_model=None)
    app.add_api_websocket_route("/ws", service.frames.serve)
    app.add_api_route("/", service.page, include_in_schema=False, response_model=None)
    _correct_document(app)
    inner: Any = app
    if options.guard.origins:
        inner = CORSMiddleware(
            app,
            allow_origins=list(options.guard.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type"],
            expose_headers=["x-request-id"],
        )
    return Gate(inner, options.guard, service.finished)


def page_headers(nonce: str) -> dict[str, str]:
    """What the page may do: nothing but its own script, its camera and this server."""
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "img-src 'self' data: blob:; media-src 'self' blob:; connect-src 'self' ws: wss:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "Permissions-Policy": "camera=(self), microphone=()",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }


def _correct_document(app: FastAPI) -> None:
    """Takes FastAPI's own form of errors out of /openapi.json: nobody gets it."""
    document = app.openapi()
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


class _Service:
    """The paths."""

    def __init__(self, engine: Engine, options: ServiceOptions) -> None:
        self.engine = engine
        self.options = options
        self.started = int(time.time())
        self.counters = Counters(engine)
        self.asker = Asker(engine, options.name, options.media, options.seconds)
        self.frames = FrameService(self.asker, self.counters, options.guard)

    async def complete(self, request: Request, body: ChatRequest) -> Response:
        """Answers a conversation, at once or piece by piece."""
        note = request.state.note
        asked = await self.asker.ask(body, note)
        if self.options.log_content:
            note["messages"] = shorten(_texts_of(body), 2000)
        if body.stream:
            options = body.stream_options
            usage = bool(options is not None and options.include_usage)
            events = self._events(asked, usage, note)
            return StreamingResponse(events, 200, STREAM_HEADERS, media_type="text/event-stream")
        try:
            return JSONResponse(await _unless_gone(request, completion(asked)))
        finally:
            self._done(asked, note)

    async def models(self) -> dict[str, Any]:
        """The served model, as a list."""
        return {"object": "list", "data": [self._model()]}

    async def model(self, name: str) -> dict[str, Any]:
        """The served model."""
        if name != self.options.name:
            message = f"the model {shorten(name)!r} is not served here; {self.options.name!r} is"
            raise Refusal(404, "model_not_found", message, "model")
        return self._model()

    async def health(self) -> dict[str, str]:
        """200 where questions are answered."""
        if not self.engine.ready:
            state = "starting or stopping" if self.engine.alive else "without its engine"
            raise Refusal(503, "not_ready", f"the service is {state}")
        return {"status": "ok"}

    async def page(self) -> Response:
        """The page that looks through a camera."""
        nonce = token_urlsafe(16)
        text = PAGE.read_text(encoding="utf-8").replace("NONCE", nonce)
        return HTMLResponse(text, headers=page_headers(nonce))

    async def metrics(self) -> Response:
        """Numbers for Prometheus."""
        return Response(self.counters.text(), media_type="text/plain; version=0.0.4")

    def finished(self, scope: Scope, status: int, seconds: float) -> None:
        """Writes the log's line of a request."""
        state = scope["state"]
        if status >= 400:
            self.counters.refused.labels(str(status)).inc()
        client = (scope.get("client") or ("-", 0))[0]
        words = {
            "id": state["request_id"],
            "client": client,
            "method": scope["method"],
            "path": repr(shorten(scope["path"])),
            "status": status or "gone",
            **state["note"],
            "total_ms": round(1000 * seconds, 1),
        }
        quiet = scope["path"] in ("/healthz", "/metrics") and status == 200
        level = logging.DEBUG if quiet else logging.INFO
        LOG.log(level, " ".join(f"{name}={value}" for name, value in words.items()))

    def _model(self) -> dict[str, Any]:
        return {
            "id": self.options.name,
            "object": "model",
            "created": self.started,
            "owned_by": "dl_techniques",
            "max_model_len": self.engine.context,
        }

    async def _events(
        self, asked: Asked, with_usage: bool, note: dict[str, Any]
    ) -> AsyncIterator[str]:
        """The lines of a stream; the replies end with it, however it ends."""
        try:
            async for chunk in chunks(asked, with_usage):
                if chunk is None:
                    yield ": ping\n\n"
                    continue
                yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
                if "error" in chunk:
                    return
            yield "data: [DONE]\n\n"
        finally:
            self._done(asked, note)

    def _done(self, asked: Asked, note: dict[str, Any]) -> None:
        asked.cancel()
        for reply in asked.replies:
            self.counters.count(reply)
        first, last = asked.replies[0], asked.replies[-1]
        for name, moment in (("queue_ms", first.times.started), ("ttft_ms", first.times.first)):
            if moment is not None:
                note[name] = round(1000 * (moment - first.times.submitted), 1)
        note["prompt_tokens"] = len(first.question.token_ids)
        note["cached_tokens"] = first.cached
        note["tokens"] = sum(len(reply.token_ids) for reply in asked.replies)
        note["finish"] = last.finish_reason or "cancelled"
        if self.options.log_content:
            note["answer"] = repr([shorten(reply.text, 2000) for reply in asked.replies])


async def _unless_gone(request: Request, work: Any) -> Any:
    """The result of some work, unless the client goes away first.

    Raises:
        Refusal: nobody waits any more.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Refusal(499, "client_gone", "the client did not wait for the answer")
    finally:
        for task in (working, leaving):
            task.cancel()


def _texts_of(body: ChatRequest) -> str:
    """Roles and texts of a request, on one line; no pictures."""

    def plain(content: Any) -> Any:
        if not isinstance(content, list):
            return content
        return [p.get("text", "<image>") if isinstance(p, dict) else None for p in content]

    return repr([(m.get("role"), plain(m.get("content"))) for m in body.messages])
