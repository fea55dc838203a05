"""Conversation records on disk: one JSON object a line, with pictures by path.

A record is `{"images": [path, ...], "messages": [{"role", "content"}, ...]}`. Files in LLaVA's
form, `{"image": path, "conversations": [{"from": "human"|"gpt", "value": ...}]}`, are read too
(one object a line, or one JSON list). Errors name the file and the line.

Reference: LLaVA's data format, https://github.com/haotian-liu/LLaVA/blob/main/docs
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dl_techniques.data.files import atomic_writer
from dl_techniques.errors import PromptError

Conversation = dict[str, Any]

ROLES = ("system", "user", "assistant")
LLAVA_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
# Fields that LLaVA files carry beside the conversation and that say nothing about it.
_LLAVA_EXTRAS = {"id", "width", "height", "metadata", "source", "dataset"}


def read_conversations(
    path: str | os.PathLike, image_root: str | os.PathLike | None = None
) -> list[Conversation]:
    """Read and check a whole file.

    Args:
        path: A `.jsonl` file, or a `.json` file that holds one list.
        image_root: Folder that relative picture paths start from; None: the file's own folder.

    Returns:
        Records in the package's form, with picture paths joined to `image_root`.

    Raises:
        PromptError: the file cannot be read, or a record is wrong; says where.
    """
    root = Path(path).parent if image_root is None else Path(image_root)
    records = []
    for where, data in _objects(Path(path)):
        record = parse_conversation(data, where)
        record["images"] = [str(root / image) for image in record["images"]]
        records.append(record)
    if not records:
        raise PromptError(f"'{path}' holds no conversation.")
    return records


def write_conversations(path: str | os.PathLike, records: Iterable[Mapping[str, Any]]) -> int:
    """Write records, one a line; the file appears only when all of them are written.

    Args:
        path: The `.jsonl` file to write; an older one is replaced.
        records: Records as in the module's description, pictures as paths.

    Returns:
        How many records were written.

    Raises:
        PromptError: a record is wrong; nothing is written then.
    """
    count = 0
    with atomic_writer(path) as file:
        for record in records:
            checked = parse_conversation(record, f"{path}, record {count + 1}")
            file.write(json.dumps(checked, ensure_ascii=False) + "\n")
            count += 1
    return count


def parse_conversation(data: Any, where: str = "record") -> Conversation:
    """Check one record and bring it to the package's form.

    Args:
        data: A record in either form.
        where: Place named in errors, e.g. `train.jsonl, line 3`.

    Returns:
        `{"images": [str, ...], "messages": [{"role", "content"}, ...]}`.

    Raises:
        PromptError: a wrong key, type, role or order.

    Example:
        >>> parse_conversation({"conversations": [{"from": "human", "value": "Hi"}]})
        {'images': [], 'messages': [{'role': 'user', 'content': 'Hi'}]}
    """
    if not isinstance(data, Mapping):
        raise PromptError(f"{where}: expected a JSON object, got {type(data).__name__}.")
    if "conversations" in data:
        data = _from_llava(data, where)
    unknown = sorted(set(data) - {"images", "messages"})
    if unknown or "messages" not in data:
        raise PromptError(
            f"{where}: a record has the keys 'messages' and 'images', got {sorted(data)}."
        )
    images = _paths(data.get("images"), where)
    messages = data["messages"]
    if not isinstance(messages, list) or not messages:
        raise PromptError(f"{where}: 'messages' must be a non-empty list.")
    checked = [_message(message, f"{where}, message {i}") for i, message in enumerate(messages)]
    _check_order([message["role"] for message in checked], where)
    return {"images": images, "messages": checked}


def _objects(path: Path) -> Iterator[tuple[str, Any]]:
    """The JSON objects of a file, each with the place it stands at."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"'{path}' cannot be read: {error}.") from error
    if text.lstrip().startswith("["):
        for i, data in enumerate(_json(text, str(path))):
            yield f"{path}, record {i + 1}", data
        return
    # Not str.splitlines, which also splits at U+2028 and other marks that JSON may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            yield where, _json(line, where)


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise PromptError(
            f"{where}: not valid JSON ({error.msg}, column {error.colno})."
        ) from error


def _from_llava(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    unknown = sorted(set(data) - {"image", "images", "conversations"} - _LLAVA_EXTRAS)
    if unknown or ("image" in data and "images" in data) or "messages" in data:
        raise PromptError(
            f"{where}: a LLaVA record has 'conversations' and 'image', got {sorted(data)}."
        )
    turns = data["conversations"]
    if not isinstance(turns, list):
        raise PromptError(f"{where}: 'conversations' must be a list.")
    messages = []
    for i, turn in enumerate(turns):
        if not isinstance(turn, Mapping) or turn.get("from") not in LLAVA_ROLES:
            raise PromptError(
                f"{where}, turn {i}: expected 'from' to be one of {list(LLAVA_ROLES)} and "
                f"'value', got {turn!r:.80}."
            )
        messages.append({"role": LLAVA_ROLES[turn["from"]], "content": turn.get("value")})
    return {"images": data.get("image", data.get("images")), "messages": messages}


def _paths(images: Any, where: str) -> list[str]:
    if images is None:
        return []
    images = [images] if isinstance(images, (str, os.PathLike)) else images
    if not isinstance(images, list) or not all(
        isinstance(image, (str, os.PathLike)) and os.fspath(image) for image in images
    ):
        raise PromptError(f"{where}: 'images' must be a list of paths, got {images!r:.80}.")
    return [os.fspath(image) for image in images]


def _message(message: Any, where: str) -> dict[str, str]:
    if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
        raise PromptError(f"{where}: expected 'role' and 'content', got {message!r:.80}.")
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise PromptError(f"{where}: role {role!r} is unknown; use one of {list(ROLES)}.")
    if not isinstance(content, str) or not content.strip():
        raise PromptError(f"{where}: 'content' must be a non-empty text, got {content!r:.80}.")
    return {"role": role, "content": content}


def _check_order(roles: list[str], where: str) -> None:
    turns = roles[1:] if roles[0] == "system" else roles
    if not turns or any(r != ("user", "assistant")[i % 2] for i, r in enumerate(turns)):
        raise PromptError(
            f"{where}: user and assistant must take turns after an optional system message, "
            f"got {roles}."
        )
