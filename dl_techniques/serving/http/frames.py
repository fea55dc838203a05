"""Frames of a camera over a WebSocket: the newest one is answered, older ones are dropped.

Subprotocol `fastvlm.v1`. The client says hello, then sends pictures as they are; the n-th binary
message is frame n. There is one place for a frame that waits, no queue: who sends faster than is
answered loses frames, not time.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from fastapi import WebSocket
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocketDisconnect, WebSocketState

from dl_techniques.errors import DLTechniquesError
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings
from dl_techniques.serving.http.completions import Asker
from dl_techniques.serving.http.counters import Counters
from dl_techniques.serving.http.guards import Guard
from dl_techniques.serving.http.refusals import Refusal, refusal_of
from dl_techniques.serving.replies import Piece, Reply

PROTOCOL = "fastvlm.v1"
HELLO_SECONDS = 5.0
SEND_SECONDS = 30.0
MOST_BYTES = 2**20
NO_HELLO, NO_TOKEN, CROWDED = 1008, 1008, 1013


class Wishes(BaseModel):
    """What a client wants to know of its frames."""

    model_config = ConfigDict(extra="forbid")
    type: str
    token: str = ""
    prompt: str = Field("describe the picture.", min_length=1, max_length=4000)
    max_tokens: int = Field(16, ge=1)
    temperature: float = Field(0.0, ge=0, le=2, allow_inf_nan=False)


@dataclass
class Frame:
    """A picture that waits.

    Attributes:
        id: its number; the first is 1.
        data: of its file.
        arrived: moment of `time.perf_counter`.
    """

    id: int
    data: bytes
    arrived: float


class FrameService:
    """Answers clients that send frames.

    Args:
        asker: prepares and asks.
        counters: count frames and clients.
        guard: has the token.
        most_clients: that are served at once.
    """

    def __init__(
        self, asker: Asker, counters: Counters, guard: Guard, most_clients: int = 64
    ) -> None:
        self._asker = asker
        self._counters = counters
        self._guard = guard
        self._most_clients = most_clients
        self._clients = 0

    async def serve(self, socket: WebSocket) -> None:
        """One client, from its hello until it leaves."""
        offered = socket.scope.get("subprotocols", [])
        await socket.accept(PROTOCOL if PROTOCOL in offered else None)
        if self._clients >= self._most_clients:
            await socket.close(CROWDED, "too many clients")
            return
        self._clients += 1
        self._counters.clients.set(self._clients)
        try:
            wishes = await self._hello(socket)
            if wishes is not None:
                await _Conversation(self._asker, self._counters, socket, wishes).run()
        except (WebSocketDisconnect, TimeoutError):
            pass
        finally:
            self._clients -= 1
            self._counters.clients.set(self._clients)
            if socket.application_state is WebSocketState.CONNECTED:
                await _closed(socket)

    async def _hello(self, socket: WebSocket) -> Wishes | None:
        """What the client wants; None where it said nothing of use, and the socket is closed."""
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                wishes = Wishes.model_validate_json(await socket.receive_text())
        except (TimeoutError, ValidationError, KeyError):
            await socket.close(NO_HELLO, "say hello first")
            return None
        if wishes.type != "hello" or not self._guard.knows(wishes.token):
            await socket.close(NO_TOKEN, "the token is missing or wrong")
            return None
        return wishes


class _Conversation:
    """What is said between one client and the engine."""

    def __init__(self, asker: Asker, counters: Counters, socket: WebSocket, wishes: Wishes) -> None:
        self._asker = asker
        self._counters = counters
        self._socket = socket
        self._wishes = wishes
        self._slot: Frame | None = None
        self._new = asyncio.Event()
        self._reply: Reply | None = None
        self._dropped = 0
        self._frames = 0

    async def run(self) -> None:
        """Until the client leaves."""
        await self._send(
            type="ready",
            model=self._asker.name,
            image_size=list(self._asker.engine.model.preprocessor.image_converter.image_size),
            max_frame_bytes=MOST_BYTES,
            max_pixels=self._asker.limits.max_pixels,
        )
        tasks = {asyncio.create_task(self._read()), asyncio.create_task(self._work())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        """Always reading: the socket never backs up."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("bytes") is not None:
                self._take(message["bytes"])
            else:
                await self._obey(message.get("text") or "")

    def _take(self, data: bytes) -> None:
        if self._slot is not None:
            self._dropped += 1
            self._counters.frames.labels("dropped").inc()
        self._frames += 1
        self._slot = Frame(self._frames, data, time.perf_counter())
        self._new.set()

    async def _obey(self, text: str) -> None:
        """A message that is no frame."""
        try:
            said = json.loads(text)
            kind = said.get("type")
            if kind == "cancel":
                self._cancel()
            elif kind == "config":
                now = self._wishes.model_dump(exclude={"type", "token"})
                self._wishes = Wishes.model_validate({**now, **said})
            else:
                raise ValueError("type must be config or cancel")
        except (ValueError, AttributeError) as error:
            await self._send(
                type="error", id=None, code="invalid_message", message=str(error)[:300]
            )

    def _cancel(self) -> None:
        self._slot = None
        if self._reply is not None:
            self._reply.cancel()

    async def _work(self) -> None:
        """One frame after the other, the newest first."""
        while True:
            await self._new.wait()
            self._new.clear()
            frame, self._slot = self._slot, None
            if frame is None:
                continue
            dropped, self._dropped = self._dropped, 0
            try:
                await self._answer(frame, dropped)
            except (Refusal, DLTechniquesError) as error:
                refusal = refusal_of(error)
                self._counters.frames.labels("bad").inc()
                await self._send(
                    type="error", id=frame.id, code=refusal.code, message=refusal.message
                )

    async def _answer(self, frame: Frame, dropped: int) -> None:
        wishes, loop = self._wishes, asyncio.get_running_loop()
        settings = RowSettings(wishes.temperature, max_new_tokens=wishes.max_tokens)
        question = await self._asker.prepare_frame(frame.data, wishes.prompt, settings)
        prepared = time.perf_counter()
        pieces: asyncio.Queue[Piece] = asyncio.Queue()

        def listen(piece: Piece) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        reply = self._reply = self._asker.submit(question, listen)
        try:
            await self._send(type="start", id=frame.id)
            while True:
                piece = await pieces.get()
                if piece.text:
                    await self._send(type="delta", id=frame.id, text=piece.text)
                if piece.last:
                    break
            if reply.error is not None:
                raise reply.error
            self._counters.frames.labels("answered").inc()
            await self._send(**_done(frame, reply, prepared, dropped))
        finally:
            reply.cancel()
            self._reply = None
            self._counters.count(reply)

    async def _send(self, **message: Any) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await self._socket.send_text(json.dumps(message, ensure_ascii=False))


def _done(frame: Frame, reply: Reply, prepared: float, dropped: int) -> dict[str, Any]:
    """The last message about a frame; times count from its arrival."""
    times, tokens = reply.times, len(reply.token_ids)
    first, ended = times.first or time.perf_counter(), times.ended or time.perf_counter()
    rate = round((tokens - 1) / max(ended - first, 1e-6), 1) if tokens > 1 else None

    def milliseconds(seconds: float) -> float:
        return round(1000 * seconds, 1)

    return {
        "type": "done",
        "id": frame.id,
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "prompt_tokens": len(reply.question.token_ids),
        "completion_tokens": tokens,
        "dropped": dropped,
        "prepare_ms": milliseconds(prepared - frame.arrived),
        "queue_ms": milliseconds((times.started or first) - times.submitted),
        "ttft_ms": milliseconds(first - frame.arrived),
        "total_ms": milliseconds(ended - frame.arrived),
        "tokens_per_second": rate,
    }


async def _closed(socket: WebSocket) -> None:
    try:
        await socket.close()
    except (WebSocketDisconnect, RuntimeError, OSError):  # it is closed already
        pass
