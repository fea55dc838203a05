"""Bring every accepted form of prompt to one: messages and their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dl_techniques.errors import PromptError

PROMPT_KEYS = {"prompts", "images", "responses"}
RECORD_KEYS = {"messages", "images"}


@dataclass(frozen=True)
class Record:
    """A conversation: `{"role", "content"}` messages and the pictures they speak about."""

    messages: Sequence[Mapping[str, str]]
    images: Sequence[Any] = ()


def to_records(x: Any) -> list[Record]:
    """Normalize inputs to a list of conversations.

    Args:
        x: A question, a prompt dict, a conversation dict, or a list or array of these.

    Returns:
        One `Record` per row of the batch.

    Raises:
        PromptError: unknown keys, no input, or lists of different lengths.
    """
    if isinstance(x, Record):
        return [x]
    if isinstance(x, (str, bytes, np.str_)):
        return [_question(x)]
    if isinstance(x, Mapping):
        return _from_messages(x) if "messages" in x else _from_prompts(x)
    if isinstance(x, np.ndarray):
        x = x.tolist()
    if not isinstance(x, Sequence) or not x:
        raise PromptError(
            f"Expected a question, a dict or a non-empty list of these, got {x!r:.80}."
        )
    records = [to_records(item) for item in x]
    if any(len(rows) != 1 for rows in records):
        raise PromptError("A list of dicts must hold one conversation per dict.")
    return [rows[0] for rows in records]


def image_list(images: Any) -> list[Any]:
    """The pictures of one prompt as a list: None, one source, or several."""
    if images is None:
        return []
    if isinstance(images, (list, tuple)):
        return list(images)
    if getattr(images, "ndim", 0) == 4:
        return list(images)
    return [images]


def _from_messages(x: Mapping[str, Any]) -> list[Record]:
    """A conversation, or columns of conversations."""
    _check_keys(x, RECORD_KEYS)
    messages, images = x["messages"], x.get("images")
    if isinstance(messages, np.ndarray):
        messages = messages.tolist()
    if isinstance(messages, (list, tuple)) and messages and isinstance(messages[0], (list, tuple)):
        rows = _per_row(images, len(messages))
        return [Record(m, image_list(i)) for m, i in zip(messages, rows, strict=True)]
    return [Record(messages, image_list(images))]


def _from_prompts(x: Mapping[str, Any]) -> list[Record]:
    """Questions with pictures and, for training, answers."""
    _check_keys(x, PROMPT_KEYS)
    if "prompts" not in x:
        raise PromptError(f"A prompt needs the key 'prompts' or 'messages', got {sorted(x)}.")
    prompts, responses = x["prompts"], x.get("responses")
    if isinstance(prompts, (str, bytes, np.str_)):
        return [_question(prompts, responses, image_list(x.get("images")))]
    prompts = list(prompts)
    if not prompts:
        raise PromptError("'prompts' is empty; give at least one question.")
    images = _per_row(x.get("images"), len(prompts))
    answers = [None] * len(prompts) if responses is None else responses
    if isinstance(answers, str) or len(answers) != len(prompts):
        raise PromptError(f"{len(prompts)} prompts need as many responses, got {answers!r:.80}.")
    rows = zip(prompts, answers, images, strict=True)
    return [_question(prompt, answer, image_list(image)) for prompt, answer, image in rows]


def _question(prompt: Any, response: Any = None, images: Sequence[Any] = ()) -> Record:
    messages = [{"role": "user", "content": _text(prompt)}]
    if response is not None:
        messages.append({"role": "assistant", "content": _text(response)})
    return Record(messages, images)


def _text(value: Any) -> Any:
    """Bytes (as numpy and datasets give them) as str; anything else is checked later."""
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return str(value) if isinstance(value, np.str_) else value


def _per_row(images: Any, batch: int) -> Sequence[Any]:
    """The `images` entry of each of `batch` rows."""
    if images is None:
        return [None] * batch
    is_rows = isinstance(images, (list, tuple)) or getattr(images, "ndim", 0) in (1, 4, 5)
    if is_rows and len(images) == batch:
        return images
    if batch == 1:  # several pictures, or one, for the only prompt
        return [image_list(images)]
    given = len(images) if is_rows else 1
    raise PromptError(
        f"{batch} prompts came with {given} entries of pictures; give one entry per prompt "
        "(a picture, a list of pictures, or None)."
    )


def _check_keys(x: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(x) - known)
    if unknown:
        raise PromptError(f"Unknown key(s) {unknown} in a prompt; known are {sorted(known)}.")
