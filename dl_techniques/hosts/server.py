"""A model behind an address: `fastvlm serve`, or anything that speaks OpenAI's chat completions.

Standard library alone: who asks a server needs no Keras.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dl_techniques.data.images import ImageSource, load_image
from dl_techniques.errors import ServingError, shorten

TOKEN = "FASTVLM_TOKEN"
SENT_AS_THEY_ARE = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
TRIES = 5


class ServerStream(Iterator[str]):
    """The pieces of one answer as the server sends them.

    Args:
        response: of a streaming request.

    Attributes:
        text: the pieces so far, joined.
        tokens: number of tokens of the answer, once it has ended.
        finish_reason: why it ended; None before.
    """

    def __init__(self, response: Any) -> None:
        self.text = ""
        self.tokens = 0
        self.finish_reason: str | None = None
        self._response = response

    def __next__(self) -> str:
        for line in self._lines():
            chunk = json.loads(line)
            if "error" in chunk:
                raise ServingError(f"the server ended the answer: {chunk['error']['message']}")
            self.tokens = (chunk.get("usage") or {}).get("completion_tokens", self.tokens)
            for choice in chunk["choices"]:
                self.finish_reason = choice.get("finish_reason") or self.finish_reason
                piece = choice["delta"].get("content")
                if piece:
                    self.text += piece
                    return str(piece)
        self._response.close()
        if self.finish_reason is None:
            raise ServingError("the server closed the connection before the answer ended")
        raise StopIteration

    def _lines(self) -> Iterator[str]:
        """The contents of the lines that hold any, up to the last one."""
        while not self._response.closed:
            try:
                line = self._response.readline().decode("utf-8").strip()
            except (OSError, http.client.HTTPException) as error:
                raise ServingError(f"the server does not answer any more: {error}") from error
            if line == "data: [DONE]" or (not line and self._response.closed):
                return
            if line.startswith("data: "):
                yield line.removeprefix("data: ")


class ServerAnswerer:
    """Asks a server; an `Answerer`.

    Args:
        url: such as `http://127.0.0.1:5000`, with or without `/v1`.
        max_new_tokens: longest answer where a call says nothing; None for the server's choice.
        token: None for that of the environment's `FASTVLM_TOKEN`, if there is one.
        together: how many questions of one call are asked at once.
        seconds: to wait for the server.

    Raises:
        ServingError: no address.

    Example:
        >>> server = ServerAnswerer("http://127.0.0.1:5000")  # doctest: +SKIP
        >>> server.answer(["What is this?"], [["cat.jpg"]])  # doctest: +SKIP
    """

    runtime = "server"

    def __init__(
        self,
        url: str,
        max_new_tokens: int | None = None,
        token: str | None = None,
        together: int = 8,
        seconds: float = 300.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ServingError(
                f"expected an address such as http://127.0.0.1:5000, got {url!r:.100}"
            )
        self.url = url.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
        self.max_new_tokens = max_new_tokens
        self._token = os.environ.get(TOKEN) if token is None else token
        self._together = together
        self._seconds = seconds

    def stream(
        self,
        question: str,
        pictures: Sequence[ImageSource],
        max_new_tokens: int | None = None,
        **fields: Any,
    ) -> ServerStream:
        """The pieces of one answer as they come.

        Args:
            question: text.
            pictures: what it is about. JPEG and PNG files are sent as they are.
            max_new_tokens: longest answer.
            **fields: further fields of the request, such as `temperature`.

        Raises:
            ServingError: the server does not answer, or refuses; says why.
            ImageError: a picture cannot be read.
        """
        streamed = {"stream": True, "stream_options": {"include_usage": True}}
        return ServerStream(
            self._post({**self._body(question, pictures, max_new_tokens), **streamed, **fields})
        )

    def answer(
        self,
        questions: Sequence[str],
        pictures: Sequence[Sequence[ImageSource]],
        max_new_tokens: int | None = None,
    ) -> list[str]:
        """One answer a question; several are asked at once, so that the server can batch them."""

        def one(question: str, few: Sequence[ImageSource]) -> str:
            with self._post(self._body(question, few, max_new_tokens)) as response:
                return str(json.load(response)["choices"][0]["message"]["content"])

        with ThreadPoolExecutor(self._together) as pool:
            return list(pool.map(one, questions, pictures))

    def _body(
        self, question: str, pictures: Sequence[ImageSource], max_new_tokens: int | None
    ) -> dict[str, Any]:
        shown = [{"type": "image_url", "image_url": {"url": data_uri_of(p)}} for p in pictures]
        content: list[dict[str, Any]] = [*shown, {"type": "text", "text": question}]
        longest = max_new_tokens or self.max_new_tokens
        body: dict[str, Any] = {"messages": [{"role": "user", "content": content}]}
        return body if longest is None else {**body, "max_tokens": longest}

    def _post(self, body: Mapping[str, Any]) -> Any:
        """The response to a request; asks again where the server says that it is busy."""
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token.strip()}"
        data = json.dumps(body).encode("utf-8")
        for tries in range(TRIES):
            request = urllib.request.Request(self.url, data, headers)
            try:
                return urllib.request.urlopen(request, timeout=self._seconds)
            except urllib.error.HTTPError as error:
                if error.code not in (429, 503) or tries == TRIES - 1:
                    raise ServingError(_refused(error)) from error
                time.sleep(float(error.headers.get("Retry-After") or 1))
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", None) or error
                raise ServingError(
                    f"no answer from {shorten(self.url)}: {reason}; is `fastvlm serve` running?"
                ) from error
        raise AssertionError("the last try returns or raises")


def data_uri_of(picture: ImageSource) -> str:
    """A picture in a text: JPEG and PNG files as they are, everything else as PNG.

    Raises:
        ImageError: it cannot be read.
    """
    if isinstance(picture, (str, Path)) and Path(picture).is_file():
        picture = Path(picture).read_bytes()
    if isinstance(picture, bytes) and picture.startswith(SENT_AS_THEY_ARE):
        kind, data = ("jpeg" if picture[:1] == b"\xff" else "png"), picture
    else:
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(load_image(picture)).save(file, "png")
        kind, data = "png", file.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _refused(error: urllib.error.HTTPError) -> str:
    """What the server says is wrong."""
    try:
        message = json.load(error)["error"]["message"]
    except (ValueError, KeyError, TypeError, OSError):
        message = error.reason
    return f"the server refused ({error.code}): {shorten(message, 500)}"
