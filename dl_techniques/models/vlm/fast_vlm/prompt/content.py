"""The content of a message: a text, or a list of parts, each a text or a picture.

| part | is |
|---|---|
| `{"type": "text", "text": ...}` | text, to the letter: `<image>` in it is no mark |
| `{"type": "image"}` | the next of the pictures that came beside the messages |
| `{"type": "image", "image": ...}` | a picture: what `data.load_image` reads |
| the same with `"path"`, `"url"` | a file's name or a data URI |
| the same with `"base64"` | a picture file written in base64 |
| `{"type": "image_url", "image_url": {"url": ...}}` | the same, as OpenAI's API has it |

Pictures stand where their parts do. One in front of all texts is followed by a newline, as the
models were trained; one behind a text by nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dl_techniques.data.data_uri import decode_data_uri
from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import (
    IMAGE,
    Message,
    Segment,
    segments_of,
)
from dl_techniques.text import check_text

SOURCES = ("image", "path", "url", "base64")


def is_parts(content: Any) -> bool:
    """Whether a message's content is a list of parts that has not been read yet."""
    if isinstance(content, (str, bytes)) or not isinstance(content, Sequence):
        return False
    return not (content and all(isinstance(part, Segment) for part in content))


def spoken(message: Message) -> str:
    """The text of a message that was read, without its pictures.

    Example:
        >>> spoken({"role": "user", "content": "<image>\\nWhat?"})
        'What?'
    """
    pieces = segments_of(message["content"])
    return "".join(piece.text for piece in pieces if piece.kind == "text").strip()


def read_messages(messages: Sequence[Any], images: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Messages whose parts are pieces of a conversation, and all pictures in their order.

    Args:
        messages: as users write them; what is no message is left for later checks.
        images: pictures that came beside them, for marks and for parts without a source.

    Raises:
        PromptError: a part of no known form, or a picture that has no source.

    Example:
        >>> parts = [{"type": "image"}, {"type": "text", "text": "What?"}]
        >>> messages, _ = read_messages([{"role": "user", "content": parts}], ["cat.jpg"])
        >>> "".join(segment.text for segment in messages[0]["content"])
        '<image>\\nWhat?'
    """
    waiting, found, read = list(images), [], []
    for i, message in enumerate(messages):
        content: Any = message.get("content") if isinstance(message, Mapping) else None
        if is_parts(content):
            pieces, sources = _read_parts(content, waiting, f"Message {i}")
            found += sources
            read.append({**message, "content": pieces})
            continue
        if isinstance(content, str) and message.get("role") == "user":
            marks = content.count(IMAGE)
            found += waiting[:marks]
            del waiting[:marks]
        read.append(message)
    return read, found + waiting


def _read_parts(
    parts: Sequence[Any], waiting: list[Any], place: str
) -> tuple[tuple[Segment, ...], list[Any]]:
    """Pieces and pictures of one message; takes those without a source from `waiting`."""
    pieces: list[Segment] = []
    sources: list[Any] = []
    for i, part in enumerate(parts):
        where = f"{place}, part {i}"
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            text = check_text(part.get("text"), f"{where}: `text`")
            pieces += [Segment(text)] if text else []
        elif kind in ("image", "image_url"):
            front = all(piece.kind == "image" or piece.text == "\n" for piece in pieces)
            pieces += [Segment(IMAGE, "image"), *([Segment("\n")] if front else [])]
            sources.append(_source(part, waiting, where))
        else:
            raise PromptError(
                f"{where} must be a dict of type 'text', 'image' or 'image_url', got {part!r:.80}."
            )
    return tuple(pieces) or (Segment(""),), sources


def _source(part: Mapping[str, Any], waiting: list[Any], where: str) -> Any:
    """The picture of a part."""
    if part["type"] == "image_url":
        url = part.get("image_url")
        part = {"url": url.get("url") if isinstance(url, Mapping) else url}
    given = [name for name in SOURCES if part.get(name) is not None]
    if len(given) > 1:
        raise PromptError(f"{where} has several pictures, {given}; give one of them.")
    if given == ["base64"]:
        try:
            return decode_data_uri(f"data:;base64,{part['base64']}")
        except ValueError as error:
            raise PromptError(f"{where}: `base64` cannot be read: {error}.") from error
    if given:
        return part[given[0]]
    if not waiting or "url" in part:
        raise PromptError(
            f"{where} is a picture without a source; give one of {list(SOURCES)} in it, or a "
            "picture for it in `images`."
        )
    return waiting.pop(0)
