"""The chat template of a bundle, in Jinja: what our own renderer does, for the engine.

The engine renders the messages with it, cuts the text at every `<image_soft_token>` and puts the
rows of a picture there; the mark itself is no token. A message's content is a string, or a list of
`{"type": "image"}` and `{"type": "text", "text": ...}`:

| layout | a picture in front of every text | a picture behind a text |
|---|---|---|
| `apple` | mark, newline | mark |
| `transformers` | mark; a newline in front of the text | mark, moved in front of the text |

To place a picture of the `apple` layout without its newline, put an empty text in front of it.

Example:
    >>> from dl_techniques.models.vlm.fast_vlm.prompt.chat_families import get_template
    >>> text = jinja_template(get_template("fastvlm"), None)
    >>> text.splitlines()[0]
    '{%- for message in messages -%}'
"""

from __future__ import annotations

from dl_techniques.errors import ExportError
from dl_techniques.hosts.litertlm_bundle import PICTURE_MARK
from dl_techniques.models.vlm.fast_vlm.prompt.chat_families import ChatTemplate
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import ROLES
from dl_techniques.models.vlm.fast_vlm.prompt.template_variants import Template

# A turn: marks, then the content gathered in `turn.body`, then marks. All line breaks of the
# template itself are cut away by the dashes; those that count are written as '\n'.
_LOOP = """\
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{- OPEN_system -}}
{%- elif message['role'] == 'user' -%}
{{- OPEN_user -}}
{%- else -%}
{{- OPEN_assistant -}}
{%- endif -%}
{%- set turn = namespace(body='', text=false) -%}
{%- if message['content'] is string -%}
{%- set turn.body = STRING -%}
{%- else -%}
LIST
{%- endif -%}
{{- turn.bodyTRIM -}}
{%- if message['role'] == 'system' -%}
{{- CLOSE_system -}}
{%- elif message['role'] == 'user' -%}
{{- CLOSE_user -}}
{%- else -%}
{{- CLOSE_assistant -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- OPEN_assistant -}}{%- endif -%}
"""
_APPLE = """\
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' -%}
{%- set turn.body = turn.body + MARK -%}
{%- if not turn.text -%}{%- set turn.body = turn.body + '\\n' -%}{%- endif -%}
{%- elif part['type'] == 'text' -%}
{%- set turn.body = turn.body + part['text'] -%}
{%- set turn.text = true -%}
{%- endif -%}
{%- endfor -%}"""
_TRANSFORMERS = """\
{%- for part in message['content'] if part['type'] == 'image' -%}
{%- set turn.body = turn.body + MARK -%}
{%- endfor -%}
{%- set turn.body = turn.body + '\\n' -%}
{%- for part in message['content'] if part['type'] == 'text' -%}
{%- set turn.body = turn.body + part['text'] -%}
{%- endfor -%}"""


def jinja_template(
    family: ChatTemplate, system_prompt: str | None, layout: Template = "apple"
) -> str:
    """The template of a bundle.

    Args:
        family: marks around the turns.
        system_prompt: of conversations without one; None or "" for none.
        layout: where pictures and line breaks go.

    Raises:
        ExportError: a family that puts the system text into the first turn of the user.
    """
    if family.system_in_user:
        raise ExportError(
            f"the chat template {family.name!r} moves the system text into the user's turn, which "
            "a bundle's template cannot; export with --format litert --part vlm"
        )
    apple = layout == "apple"
    text = _LOOP.replace("LIST", _APPLE if apple else _TRANSFORMERS)
    text = text.replace("STRING", "message['content']" if apple else "'\\n' + message['content']")
    text = text.replace("TRIM", " | trim" if family.trim else "")
    text = text.replace("MARK", quoted(PICTURE_MARK))
    for role in ROLES:
        text = text.replace(f"OPEN_{role}", quoted("".join(family.opening(role))))
        text = text.replace(f"CLOSE_{role}", quoted("".join(family.closing(role))))
    return _beginning(family, system_prompt) + text


def _beginning(family: ChatTemplate, system_prompt: str | None) -> str:
    """What stands in front of the first message."""
    begin = f"{{{{- {quoted(family.begin)} -}}}}\n" if family.begin else ""
    if not system_prompt:
        return begin
    content = system_prompt.strip() if family.trim else system_prompt
    turn = "".join([*family.opening("system"), content, *family.closing("system")])
    condition = "{%- if messages[0]['role'] != 'system' -%}"
    return f"{begin}{condition}\n{{{{- {quoted(turn)} -}}}}\n{{%- endif -%}}\n"


def quoted(text: str) -> str:
    r"""A text as a literal of Jinja.

    Example:
        >>> print(quoted("it's\n"))
        'it\'s\n'
    """
    text = text.replace("\\", "\\\\").replace("'", "\\'")
    for character, escape in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(character, escape)
    return f"'{text}'"
