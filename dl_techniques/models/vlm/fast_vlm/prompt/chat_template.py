"""Conversations in typed pieces: what is control, what is text, what is learned.

The marks around the turns are those of a family (`chat_families`), ChatML unless told otherwise.

A rendered conversation is a list of `Segment`. Control tokens and pictures are segments of
their own kind, so a user who types `<|im_end|>` gets the characters, not the token: texts are
tokenized as plain characters (`FastVLMTokenizer.tokenize_plain`). Only `<image>` in a *user*
text means something: it marks where a picture goes. In system and assistant texts it is plain.

Reference: Apple's FastVLM `llava/conversation.py`, template `qwen_2`,
https://github.com/apple/ml-fastvlm
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.prompt.chat_families import (
    ChatTemplate,
    Control,
    get_template,
)
from dl_techniques.text import check_text

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
IMAGE = "<image>"
# In the order of Qwen2's ids 151643..151646: appended to a vocabulary that lacks them, they get
# exactly the ids that the published checkpoints use.
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END, IMAGE)

DEFAULT_SYSTEM_PROMPT = "You are a helpful assistant."
ROLES = ("system", "user", "assistant")

Message = Mapping[str, str]


@dataclass(frozen=True)
class Segment:
    """A piece of a rendered conversation.

    Attributes:
        text: The characters; one control token or `<image>` for the other kinds.
        kind: `"control"`, `"image"` (place of one picture) or `"text"`.
        learn: Whether training learns to write this piece.
    """

    text: str
    kind: Literal["control", "image", "text"] = "text"
    learn: bool = False


def as_text(segments: Sequence[Segment]) -> str:
    """The rendered conversation as one string, for reading and for comparison."""
    return "".join(segment.text for segment in segments)


def render(
    messages: Sequence[Message],
    num_images: int = 0,
    system_prompt: str | None = DEFAULT_SYSTEM_PROMPT,
    answer_next: bool = True,
    template: str | ChatTemplate = "fastvlm",
) -> list[Segment]:
    """Render a conversation.

    Args:
        messages: `{"role": "system"|"user"|"assistant", "content": str}`; an optional system
            message first, then user and assistant in turns.
        num_images: Pictures of the conversation. Without any `<image>` mark in the user texts
            they all go in front of the first one, each as `<image>` and a newline.
        system_prompt: Used where `messages` has no system message; None or "" for none.
        answer_next: True: the last message is the user's, and the text ends where the answer
            begins. False: the last message is the assistant's (training).
        template: The family's marks; a name of `chat_families.TEMPLATES`.

    Returns:
        Segments; neighbours of kind text with the same `learn` are one segment, so that
        tokenizing piece by piece equals tokenizing the whole string.

    Raises:
        PromptError: wrong roles or order, an empty text, one that is no str or cannot be UTF-8,
            or a number of `<image>` marks that differs from `num_images`.

    Example:
        >>> as_text(render([{"role": "user", "content": "Hi"}], system_prompt=None))
        '<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n'
    """
    family = get_template(template)
    messages = _checked(messages, answer_next)
    messages = _place_images(messages, num_images)
    if system_prompt:
        check_text(system_prompt, "`system_prompt`")
    if messages[0]["role"] != "system" and system_prompt:
        messages = [{"role": "system", "content": system_prompt}, *messages]
    segments = [_mark(family.begin)] if family.begin else []
    lead = ""
    for message in messages:
        if message["role"] == "system" and family.system_in_user:
            lead = f"{message['content'].strip()}\n\n"
            continue
        segments += _turn(family, message["role"], message["content"], lead)
        lead = ""
    if answer_next:
        segments += [_mark(mark) for mark in family.opening("assistant")]
    return _merge_texts(segments)


def _mark(mark: str, learn: bool = False) -> Segment:
    """A mark of a template; of an answer's marks only the control token is learned."""
    if isinstance(mark, Control):
        return Segment(str(mark), "control", learn)
    return Segment(mark)


def _turn(family: ChatTemplate, role: str, content: str, lead: str = "") -> list[Segment]:
    """One turn between its marks, with a text in front of its own."""
    learn = role == "assistant"
    content = content.strip() if family.trim else content
    body = [Segment(content, learn=learn)] if role != "user" else _split_marks(content)
    return [
        *(_mark(mark) for mark in family.opening(role)),
        *([Segment(lead)] if lead else []),
        *body,
        *(_mark(mark, learn=learn) for mark in family.closing(role)),
    ]


def _split_marks(content: str) -> list[Segment]:
    """A user's text as text and picture segments."""
    segments: list[Segment] = []
    for i, piece in enumerate(content.split(IMAGE)):
        segments += [Segment(IMAGE, "image")] if i else []
        segments += [Segment(piece)] if piece else []
    return segments


def _merge_texts(segments: Sequence[Segment]) -> list[Segment]:
    """Join neighbouring texts; the border to a learned text stays, as in generation."""
    merged: list[Segment] = []
    for segment in segments:
        last = merged[-1] if merged else None
        if last and last.kind == segment.kind == "text" and last.learn == segment.learn:
            merged[-1] = Segment(last.text + segment.text, "text", last.learn)
        else:
            merged.append(segment)
    return merged


def _checked(messages: Sequence[Message], answer_next: bool) -> list[Message]:
    """The messages, if roles, order and contents are right."""
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise PromptError(
            f"`messages` must be a non-empty list of role/content dicts, got {messages!r:.80}."
        )
    for i, message in enumerate(messages):
        _check_message(i, message)
    turns = [m["role"] for m in messages][messages[0]["role"] == "system" :]
    expected = ["user", "assistant"] * (len(turns) // 2 + 1)
    if not turns or turns != expected[: len(turns)]:
        raise PromptError(
            "A conversation is an optional system message, then user and assistant in turns; "
            f"got roles {[m['role'] for m in messages]}."
        )
    last = "user" if answer_next else "assistant"
    if turns[-1] != last:
        purpose = "an answer can be generated" if answer_next else "there is an answer to learn"
        raise PromptError(f"The last message must be from the {last}, so that {purpose}.")
    return list(messages)


def _check_message(index: int, message: Any) -> None:
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        raise PromptError(f"Message {index} must have `role` and `content`, got {message!r:.80}.")
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise PromptError(f"Message {index} has role {role!r}; use one of {list(ROLES)}.")
    check_text(content, f"Message {index}: `content`")
    spoken = content.replace(IMAGE, "") if role == "user" else content
    if role != "system" and not spoken.strip():
        what = "question" if role == "user" else "answer"
        raise PromptError(f"Message {index}: the {what} is empty; write some text.")


def _place_images(messages: list[Message], num_images: int) -> list[Message]:
    """Put marks into the first user text if there are none; check their number."""
    marks = sum(m["content"].count(IMAGE) for m in messages if m["role"] == "user")
    if marks == num_images:
        return messages
    if marks:
        raise PromptError(
            f"The prompt has {marks} {IMAGE} mark(s) but {num_images} picture(s) came with it; "
            f"give one picture per mark, or leave the marks out to put all pictures first."
        )
    first = next(i for i, m in enumerate(messages) if m["role"] == "user")
    content = f"{IMAGE}\n" * num_images + messages[first]["content"]
    return [*messages[:first], {"role": "user", "content": content}, *messages[first + 1 :]]
