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
from dataclasses import dataclass, replace
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

Message = Mapping[str, Any]


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
        messages: `{"role": "system"|"user"|"assistant", "content": ...}`; an optional system
            message first, then user and assistant in turns. A content is a str, or `Segment`s
            as `content.read_messages` makes them of a list of parts.
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
            lead = f"{as_text(segments_of(message['content'])).strip()}\n\n"
            continue
        segments += _turn(family, message, lead)
        lead = ""
    if answer_next:
        segments += [_mark(mark) for mark in family.opening("assistant")]
    return _merge_texts(segments)


def _mark(mark: str, learn: bool = False) -> Segment:
    """A mark of a template; of an answer's marks only the control token is learned."""
    if isinstance(mark, Control):
        return Segment(str(mark), "control", learn)
    return Segment(mark)


def _turn(family: ChatTemplate, message: Message, lead: str = "") -> list[Segment]:
    """One turn between its marks, with a text in front of its own."""
    role, learn = message["role"], message["role"] == "assistant"
    body = segments_of(message["content"], marks=role == "user")
    body = _trimmed(body) if family.trim else body
    return [
        *(_mark(mark) for mark in family.opening(role)),
        *([Segment(lead)] if lead else []),
        *(replace(segment, learn=learn) for segment in body if segment.text),
        *(_mark(mark, learn=learn) for mark in family.closing(role)),
    ]


def segments_of(content: str | Sequence[Segment], marks: bool = True) -> list[Segment]:
    """A message's content as text and picture segments.

    Args:
        content: a text, or segments, which stay as they are.
        marks: whether `<image>` in a text is the place of a picture.
    """
    if not isinstance(content, str):
        return list(content)
    if not marks:
        return [Segment(content)]
    segments: list[Segment] = []
    for i, piece in enumerate(content.split(IMAGE)):
        segments += [Segment(IMAGE, "image")] if i else []
        segments += [Segment(piece)] if piece else []
    return segments


def _trimmed(segments: Sequence[Segment]) -> list[Segment]:
    """A content without the white space around it."""
    result = _merge_texts(segments)
    if result and result[0].kind == "text":
        result[0] = replace(result[0], text=result[0].text.lstrip())
    if result and result[-1].kind == "text":
        result[-1] = replace(result[-1], text=result[-1].text.rstrip())
    return result


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
    given = not isinstance(content, str) and isinstance(content, Sequence)
    if not (given and content and all(isinstance(piece, Segment) for piece in content)):
        content = check_text(content, f"Message {index}: `content`")
    segments = segments_of(content, marks=role == "user")
    if role != "user" and any(segment.kind == "image" for segment in segments):
        raise PromptError(f"Message {index} is from the {role}, who shows no pictures.")
    words = "".join(segment.text for segment in segments if segment.kind == "text")
    if role != "system" and not words.strip():
        what = "question" if role == "user" else "answer"
        raise PromptError(f"Message {index}: the {what} is empty; write some text.")


def count_pictures(messages: Sequence[Message]) -> int:
    """The places of pictures in the messages of the user."""
    return sum(
        segment.kind == "image"
        for message in messages
        if message["role"] == "user"
        for segment in segments_of(message["content"])
    )


def _place_images(messages: list[Message], num_images: int) -> list[Message]:
    """Put marks into the first user text if there are none; check their number."""
    marks = count_pictures(messages)
    if marks == num_images:
        return messages
    if marks:
        raise PromptError(
            f"The prompt has {marks} {IMAGE} mark(s) but {num_images} picture(s) came with it; "
            f"give one picture per mark, or leave the marks out to put all pictures first."
        )
    first = next(i for i, m in enumerate(messages) if m["role"] == "user")
    front = [Segment(IMAGE, "image"), Segment("\n")] * num_images
    content = [*front, *segments_of(messages[first]["content"])]
    return [*messages[:first], {"role": "user", "content": content}, *messages[first + 1 :]]
