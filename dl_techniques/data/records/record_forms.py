"""The forms in which public training sets write a conversation, brought to the package's own.

| list | a turn | pictures |
|---|---|---|
| `messages` | `{"role": "user", "content": ...}` | `images`, `image` or `image_path` |
| `conversations` | the same, or `{"from": "human", "value": ...}` (LLaVA, ShareGPT) | the same |
| none | `question` and `answer`, texts of the record itself | the same |

Fields that only describe a record (`id`, `model`, `question_id`, ...) are ignored. In turns
with `from` and `value` an `<image>` mark that stands alone goes to the front, followed by a
newline, wherever it stood, as LLaVA does before it trains. A turn with several marks tells by
their places which picture is which: there they stay.

Reference: LLaVA's data format, https://github.com/haotian-liu/LLaVA/blob/main/docs
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from dl_techniques.errors import PromptError, shorten

IMAGE_MARK = "<image>"
ROLES = ("system", "user", "assistant")
_ROLE_NAMES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
_PICTURE_KEYS = ("images", "image", "image_path")
# Pictures under a name that is not read: without this, a record that lost its picture.
_UNREAD_PICTURES = {
    "picture", "pictures", "photo", "photos", "img", "imgs", "image_paths", "image_file",
    "image_files", "image_url", "image_urls", "image_name", "file_name",
}  # fmt: skip
_OTHER_MEDIA = ("video", "videos", "audio", "audios", "sound")


def own_form(data: Any, where: str) -> dict[str, Any]:
    """A record in any of the forms as `{"images": [str, ...], "messages": [...]}`.

    Roles have their own names then; order and number of turns are not checked.

    Raises:
        PromptError: keys, types or roles that none of the forms has.
    """
    if not isinstance(data, Mapping):
        raise PromptError(f"{where}: expected a JSON object, got {type(data).__name__}.")
    lists = [key for key in ("messages", "conversations") if key in data]
    if not lists and "question" in data and "answer" in data:
        turns = [("user", data["question"]), ("assistant", data["answer"])]
        data = {**data, "messages": [{"role": r, "content": text} for r, text in turns]}
        lists = ["messages"]
    if len(lists) != 1:
        raise PromptError(
            f"{where}: a record has one of the keys 'messages' and 'conversations', or 'question' "
            f"and 'answer', and 'images', got {shorten(sorted(map(str, data)))}."
        )
    images = _pictures(data, where)
    turns, word = data[lists[0]], "message" if lists[0] == "messages" else "turn"
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise PromptError(f"{where}: '{lists[0]}' must be a non-empty list.")
    messages = [_turn(turn, f"{where}, {word} {i}") for i, turn in enumerate(turns)]
    return {"images": images, "messages": messages}


def _turn(turn: Any, where: str) -> dict[str, str]:
    """One turn with the package's own names."""
    if not isinstance(turn, Mapping):
        raise PromptError(f"{where}: expected 'role' and 'content', got {shorten(turn)}.")
    is_llava = "from" in turn and "role" not in turn
    role_key, text_key = ("from", "value") if is_llava else ("role", "content")
    if role_key not in turn or text_key not in turn:
        raise PromptError(
            f"{where}: expected 'role' and 'content', or 'from' and 'value', got {shorten(turn)}."
        )
    name, text = turn[role_key], turn[text_key]
    role = _ROLE_NAMES.get(name) if isinstance(name, str) else None
    if role is None:
        raise PromptError(
            f"{where}: {role_key} {shorten(repr(name))} is unknown; use one of {list(_ROLE_NAMES)}."
        )
    if not isinstance(text, str):
        raise PromptError(f"{where}: '{text_key}' must be a text, got {shorten(repr(text))}.")
    if is_llava and role == "user":
        text = mark_first(text)
    return {"role": role, "content": text}


def mark_first(text: str) -> str:
    r"""A question with its only `<image>` mark in front, as LLaVA trains on it.

    Example:
        >>> mark_first("What is it?\n<image>")
        '<image>\nWhat is it?'
    """
    if text.count(IMAGE_MARK) != 1:
        return text
    return f"{IMAGE_MARK}\n{text.replace(IMAGE_MARK, '').strip()}".strip()


def _pictures(data: Mapping[str, Any], where: str) -> list[str]:
    """The picture names of a record, from whichever key holds them."""
    media = [key for key in _OTHER_MEDIA if data.get(key)]
    if media:
        raise PromptError(f"{where}: {media} cannot be trained on; only pictures can.")
    given = {key: data[key] for key in _PICTURE_KEYS if key in data and not _is_none(data[key])}
    named = {key: _names(images, f"{where}: '{key}'") for key, images in given.items()}
    different = list(named.values())
    if any(names != different[0] for names in different[1:]):
        raise PromptError(
            f"{where}: {list(named)} hold different pictures; keep one of these keys."
        )
    unread = sorted(key for key in _UNREAD_PICTURES if data.get(key) is not None)
    if unread and not named and not any(key in data for key in _PICTURE_KEYS):
        raise PromptError(
            f"{where}: pictures are read from 'images', 'image' or 'image_path', not from {unread}."
        )
    return different[0] if different else []


def _is_none(images: Any) -> bool:
    """Whether a field says that there is no picture: null, "" or an empty list."""
    return images is None or (isinstance(images, (str, Sequence)) and len(images) == 0)


def _names(images: Any, what: str) -> list[str]:
    images = [images] if isinstance(images, (str, os.PathLike)) else images
    if not isinstance(images, (list, tuple)) or not all(
        isinstance(image, (str, os.PathLike)) and os.fspath(image) for image in images
    ):
        raise PromptError(f"{what} must be a list of paths, got {shorten(repr(images))}.")
    return [str(os.fspath(image)) for image in images]
