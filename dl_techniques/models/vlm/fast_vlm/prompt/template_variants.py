"""The two ways to lay out the same conversation that exist for FastVLM's published weights.

| template | one picture, text Q | two pictures | an answer A that was given before |
|---|---|---|---|
| `apple` | `<image>`, newline, Q | `<image>`, newline, `<image>`, newline, Q | A |
| `transformers` | `<image>`, newline, Q | `<image>`, `<image>`, newline, Q | newline, A |

`apple` is what Apple's `predict.py` does, `transformers` what the chat template of the Hugging
Face conversion does. The marks around the turns are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import (
    IMAGE,
    Message,
    Segment,
    count_pictures,
    segments_of,
)

Template = Literal["apple", "transformers"]
TEMPLATES: tuple[Template, ...] = ("apple", "transformers")

# The same rules in the language of chat templates, with the default system prompt left open.
JINJA = """\
{%- if messages[0]['role'] != 'system' -%}
{{- '<|im_start|>system\\nSYSTEM_PROMPT<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- '\\n' + message['content'] -}}
{%- else -%}
{%- for part in message['content'] if part['type'] == 'image' -%}{{- '<image>' -}}{%- endfor -%}
{%- for part in message['content'] if part['type'] == 'text' -%}
{{- '\\n' + part['text'] -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def jinja_template(system_prompt: str | None) -> str:
    """`chat_template.jinja` of an exported folder.

    Args:
        system_prompt: of conversations without one; None or "" for none.
    """
    if system_prompt:
        quoted = system_prompt.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
        return JINJA.replace("SYSTEM_PROMPT", quoted)
    return JINJA[JINJA.index("{%- for message") :]


def as_transformers(messages: Any, num_images: int) -> Any:
    """Messages whose texts stand where the `transformers` template puts them.

    Args:
        messages: role/content dicts; anything else is returned as it is, for later checks.
        num_images: pictures of the conversation; without `<image>` marks all go to the first
            message of the user.

    Returns:
        Messages with marks: all of a message's in front, then a newline and its text.

    Example:
        >>> (message,) = as_transformers([{"role": "user", "content": "What?"}], 2)
        >>> "".join(piece.text for piece in message["content"])
        '<image><image>\\nWhat?'
    """
    if not _well_formed(messages):
        return messages
    waiting = 0 if count_pictures(messages) else num_images
    result: list[Message] = []
    for message in messages:
        pieces, front = segments_of(message["content"], marks=message["role"] == "user"), 0
        if message["role"] == "user":
            front, waiting = sum(p.kind == "image" for p in pieces) + waiting, 0
        texts = [piece for piece in pieces if piece.kind == "text"]
        content = [*[Segment(IMAGE, "image")] * front, Segment("\n"), *texts]
        result.append({"role": message["role"], "content": content})
    return result


def _well_formed(messages: Any) -> bool:
    return isinstance(messages, Sequence) and all(
        isinstance(m, Mapping) and "role" in m and _is_content(m.get("content")) for m in messages
    )


def _is_content(content: Any) -> bool:
    segments = isinstance(content, Sequence) and all(isinstance(s, Segment) for s in content)
    return isinstance(content, str) or segments
