"""Bring every accepted form of prompt to one: messages and their pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.prompt.content import read_messages
from dl_techniques.text import check_numpy_text, is_text, list_of_texts

PROMPT_KEYS = {"prompts", "images", "responses"}
RECORD_KEYS = {"messages", "images"}


@dataclass(frozen=True)
class Record:
    """A conversation: `{"role", "content"}` messages and the pictures they speak about."""

    messages: Sequence[Mapping[str, Any]]
    images: Sequence[Any] = ()


def to_records(x: Any, names: Sequence[str] | None = None) -> list[Record]:
    """Normalize inputs to a list of conversations.

    Args:
        x: A question, a prompt dict, a conversation dict, or a list or array of these.
        names: What errors call the entries of a list; None for their place in it.

    Returns:
        One `Record` per row of the batch.

    Raises:
        PromptError: unknown keys, no input, lists of different lengths, or a question or answer
            that is no text; says where it stands.
    """
    if isinstance(x, Record):
        return [x]
    if isinstance(x, np.ndarray):
        x = list_of_texts(x)
    if is_text(x):
        return [_question(x)]
    if isinstance(x, Mapping):
        return _from_messages(x) if "messages" in x else _from_prompts(x)
    if not isinstance(x, Sequence) or not x:
        raise PromptError(
            f"Expected a question, a dict or a non-empty list of these, got {x!r:.80}."
        )
    names = names or [f"prompt {i}" for i in range(len(x))]
    return [_one_record(item, name) for item, name in zip(x, names, strict=True)]


def _one_record(item: Any, name: str) -> Record:
    """An entry of a list."""
    try:
        records = to_records(item)
    except PromptError as error:
        raise PromptError(f"{name}: {error}") from error
    if len(records) != 1:
        raise PromptError(f"{name}: a list of dicts must hold one conversation per dict.")
    return records[0]


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
    messages = messages.tolist() if isinstance(messages, np.ndarray) else messages
    if isinstance(messages, (list, tuple)) and messages and isinstance(messages[0], (list, tuple)):
        rows = _per_row(images, len(messages))
        return [_conversation(m, i) for m, i in zip(messages, rows, strict=True)]
    return [_conversation(messages, images)]


def _conversation(messages: Any, images: Any) -> Record:
    """One conversation; what its messages are is checked where they are rendered."""
    given = image_list(images)
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        return Record(messages, given)  # type: ignore[arg-type]
    return Record(*read_messages(messages, given))


def _from_prompts(x: Mapping[str, Any]) -> list[Record]:
    """Questions with pictures and, for training, answers."""
    _check_keys(x, PROMPT_KEYS)
    if "prompts" not in x:
        raise PromptError(f"A prompt needs the key 'prompts' or 'messages', got {sorted(x)}.")
    prompts, responses = _column(x["prompts"]), _column(x.get("responses"))
    if not isinstance(prompts, list):
        return [_question(prompts, responses, image_list(x.get("images")), "'prompts'")]
    if not prompts:
        raise PromptError("'prompts' is empty; give at least one question.")
    images = _per_row(x.get("images"), len(prompts))
    answers = [None] * len(prompts) if responses is None else responses
    if not isinstance(answers, list) or len(answers) != len(prompts):
        raise PromptError(f"{len(prompts)} prompts need as many responses, got {answers!r:.80}.")
    rows = enumerate(zip(prompts, answers, images, strict=True))
    return [
        _question(prompt, answer, image_list(image), f"'prompts'[{i}]")
        for i, (prompt, answer, image) in rows
    ]


def _column(values: Any) -> Any:
    """The entries of a field as a list; a single text or anything else as it is."""
    if isinstance(values, np.ndarray):
        return list_of_texts(values)
    return list(values) if isinstance(values, Iterable) and not is_text(values) else values


def _question(
    prompt: Any, response: Any = None, images: Sequence[Any] = (), place: str = "the question"
) -> Record:
    messages = [{"role": "user", "content": check_numpy_text(prompt, place)}]
    if response is not None:
        content = check_numpy_text(response, place.replace("prompts", "responses"))
        messages.append({"role": "assistant", "content": content})
    return Record(messages, images)


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
