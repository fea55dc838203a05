"""From a request to its replies, and from these to OpenAI's objects."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from dl_techniques.errors import DLTechniquesError, PromptError
from dl_techniques.models.vlm.fast_vlm.answer.rows.answer_text import INCOMPLETE
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_choice import TokenLogprob
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings
from dl_techniques.serving.engine import Engine
from dl_techniques.serving.http.bodies import (
    ChatRequest,
    conversation_of,
    refuse_unsupported,
    settings_of_request,
)
from dl_techniques.serving.http.media import MediaLimits, decode_picture, read_picture
from dl_techniques.serving.http.refusals import Refusal, refusal_of
from dl_techniques.serving.questions import Question, make_question
from dl_techniques.serving.replies import Piece, Reply

PING_SECONDS = 15.0


@dataclass
class Asked:
    """A request whose replies are being written.

    Attributes:
        replies: one for each of its `n` choices.
        events: the index of a choice and a piece of its text, as they come.
        tokenizer: of the model.
        name: of the served model.
        id: of the answer.
        created: when, in seconds since 1970.
    """

    replies: list[Reply]
    events: asyncio.Queue[tuple[int, Piece]]
    tokenizer: Any
    name: str
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def cancel(self) -> None:
        """Ends what is still being written."""
        for reply in self.replies:
            reply.cancel()

    def usage(self) -> dict[str, Any]:
        """Numbers of tokens."""
        first = self.replies[0]
        prompt = len(first.question.token_ids)
        answers = sum(len(reply.token_ids) for reply in self.replies)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": answers,
            "total_tokens": prompt + answers,
            "prompt_tokens_details": {"cached_tokens": first.cached},
        }

    def logprobs(self, reply: Reply, start: int, end: int) -> dict[str, Any] | None:
        """What is known about the tokens `start .. end` of a reply; an end token is left out."""
        if reply.question.settings.logprobs is None:
            return None
        known = reply.row.logprobs[start:end]
        special = {self.tokenizer.end_token_id, getattr(self.tokenizer, "end_token2_id", None)}
        return {"content": [self._token(k) for k in known if k.token not in special]}

    def _token(self, known: TokenLogprob) -> dict[str, Any]:
        top = [self._text(token) | {"logprob": value} for token, value in known.top]
        return self._text(known.token) | {"logprob": known.logprob, "top_logprobs": top}

    def _text(self, token: int) -> dict[str, Any]:
        text = self.tokenizer.detokenize([token])
        return {"token": text, "bytes": None if INCOMPLETE in text else list(text.encode())}


class Asker:
    """Turns requests into replies of an engine.

    Args:
        engine: that answers.
        name: of the served model.
        limits: of pictures.
        seconds: answers end after so long, as they are.
    """

    def __init__(self, engine: Engine, name: str, limits: MediaLimits, seconds: float) -> None:
        self.engine = engine
        self.name = name
        self.limits = limits
        self._seconds = seconds
        self._pool = ThreadPoolExecutor(2, "prepare")

    async def ask(self, request: ChatRequest, note: dict[str, Any]) -> Asked:
        """Checks a request, reads its pictures and queues its questions.

        Args:
            request: the body.
            note: what the log's line is to tell.

        Raises:
            Refusal: says what is wrong, and where.
        """
        if request.model is not None and request.model != self.name:
            message = f"the model {request.model!r:.100} is not served here; {self.name!r} is"
            raise Refusal(404, "model_not_found", message, "model")
        if not self.engine.ready:
            raise Refusal(503, "not_ready", "the service is starting or stopping; ask again")
        start = time.perf_counter()
        loop = asyncio.get_running_loop()
        questions = await loop.run_in_executor(self._pool, self._prepare, request, note)
        note["prepare_ms"] = round(1000 * (time.perf_counter() - start), 1)
        events: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
        asked = Asked([], events, self.engine.model.preprocessor.tokenizer, self.name)
        try:
            for i, question in enumerate(questions):
                listener = _listener(loop, events, i)
                asked.replies.append(self.submit(question, listener))
        except DLTechniquesError:
            asked.cancel()
            raise
        return asked

    def submit(self, question: Question, listener: Callable[[Piece], None]) -> Reply:
        """Queues a question of `prepare_frame`.

        Raises:
            QueueFullError: too many wait.
            StoppedError: the engine is starting or stopping.
        """
        return self.engine.submit(question, listener, self._seconds)

    async def prepare_frame(self, data: bytes, prompt: str, settings: RowSettings) -> Question:
        """A question about one picture.

        Args:
            data: of the picture's file.
            prompt: text.
            settings: how to answer.

        Raises:
            Refusal: the picture cannot be used.
            PromptError: the prompt cannot.
        """

        def prepare() -> Question:
            picture = decode_picture(data, "frame", self.limits)
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            messages = [{"role": "user", "content": content}]
            model, context = self.engine.model, self.engine.context
            return make_question(model, messages, [picture], settings, context)

        return await asyncio.get_running_loop().run_in_executor(self._pool, prepare)

    def _prepare(self, request: ChatRequest, note: dict[str, Any]) -> list[Question]:
        """In a thread of the pool: everything that takes time before the model."""
        refuse_unsupported(request)
        settings = settings_of_request(request)
        conversation = conversation_of(request.messages)
        read = [read_picture(url, place, self.limits) for url, place in conversation.urls]
        note["pictures"] = len(read)
        note["picture_bytes"] = sum(size for _, size in read)
        note["sizes"] = ",".join(f"{p.shape[1]}x{p.shape[0]}" for p, _ in read) or "-"
        pictures = [picture for picture, _ in read]
        try:
            first = make_question(
                self.engine.model,
                conversation.messages,
                pictures,
                settings[0],
                self.engine.context,
            )
        except PromptError as error:
            code = "context_length_exceeded" if "context of" in str(error) else "invalid_value"
            raise Refusal(400, code, str(error), "messages") from error
        self._check_length(request, first)
        return [first, *(_with_settings(first, other) for other in settings[1:])]

    def _check_length(self, request: ChatRequest, question: Question) -> None:
        length, wanted = len(question.token_ids), request.longest
        if wanted is not None and length + wanted > self.engine.context:
            message = (
                f"the prompt's {length} tokens and {wanted} of the answer are more than the "
                f"context of {self.engine.context}; shorten the prompt or ask for fewer"
            )
            raise Refusal(400, "context_length_exceeded", message, "messages")


def _with_settings(question: Question, settings: RowSettings) -> Question:
    return Question(**{**vars(question), "settings": settings})


def _listener(
    loop: asyncio.AbstractEventLoop, events: asyncio.Queue[tuple[int, Piece]], index: int
) -> Callable[[Piece], None]:
    """Hands pieces from the engine's thread to the event loop."""

    def listen(piece: Piece) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(events.put_nowait, (index, piece))

    return listen


async def completion(asked: Asked) -> dict[str, Any]:
    """Waits for all replies: the `chat.completion` object.

    Raises:
        Refusal: a reply ended with an error.
    """
    left = len(asked.replies)
    while left:
        _, piece = await asked.events.get()
        left -= piece.last
    for reply in asked.replies:
        if reply.error is not None:
            raise refusal_of(reply.error)
    return {
        "id": asked.id,
        "object": "chat.completion",
        "created": asked.created,
        "model": asked.name,
        "choices": [_choice(asked, i, reply) for i, reply in enumerate(asked.replies)],
        "usage": asked.usage(),
    }


def _choice(asked: Asked, index: int, reply: Reply) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": reply.text, "refusal": None},
        "finish_reason": reply.finish_reason,
        "logprobs": asked.logprobs(reply, 0, len(reply.token_ids)),
    }


async def chunks(asked: Asked, with_usage: bool) -> AsyncIterator[dict[str, Any] | None]:
    """The `chat.completion.chunk` objects; None where nothing came for a while."""
    for index in range(len(asked.replies)):
        yield _chunk(asked, index, {"role": "assistant", "content": ""})
    told = [0] * len(asked.replies)
    left = len(asked.replies)
    while left:
        try:
            index, piece = await asyncio.wait_for(asked.events.get(), PING_SECONDS)
        except TimeoutError:
            yield None
            continue
        reply = asked.replies[index]
        logprobs = asked.logprobs(reply, told[index], piece.tokens)
        told[index] = piece.tokens
        if piece.text or (logprobs is not None and logprobs["content"]):
            yield _chunk(asked, index, {"content": piece.text}, logprobs)
        if piece.last:
            left -= 1
            if reply.error is not None:
                yield refusal_of(reply.error).body()
                return
            yield _chunk(asked, index, {}, finish_reason=reply.finish_reason)
    if with_usage:
        yield _of_chunk(asked, []) | {"usage": asked.usage()}


def _chunk(
    asked: Asked,
    index: int,
    delta: dict[str, Any],
    logprobs: dict[str, Any] | None = None,
    finish_reason: str | None = None,
) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    return _of_chunk(asked, [choice])


def _of_chunk(asked: Asked, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": asked.id,
        "object": "chat.completion.chunk",
        "created": asked.created,
        "model": asked.name,
        "choices": list(choices),
    }
