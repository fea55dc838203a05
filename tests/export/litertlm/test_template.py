"""The Jinja template of a bundle against the package's own renderer."""

from __future__ import annotations

from typing import Any

import pytest

from dl_techniques.errors import ExportError
from dl_techniques.export.litertlm.template import jinja_template, quoted
from dl_techniques.hosts.litertlm_bundle import PICTURE_MARK
from dl_techniques.models.vlm.fast_vlm.prompt.chat_families import TEMPLATES
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import IMAGE, as_text, render
from dl_techniques.models.vlm.fast_vlm.prompt.template_variants import as_transformers

pytestmark = pytest.mark.once

jinja2 = pytest.importorskip("jinja2", reason="renders the template as the engine does")
FAMILIES = sorted(name for name, family in TEMPLATES.items() if not family.system_in_user)
SYSTEM = "Be 'brief',\n\\o/ and\tkind."
FIRST, PICTURE = " What's\n{{ this }}? ", {"type": "image", "blob": ""}
TALK = [
    {"role": "user", "content": [PICTURE, PICTURE, {"type": "text", "text": FIRST}]},
    {"role": "assistant", "content": "A cube."},
    {"role": "user", "content": [{"type": "text", "text": "Why"}, PICTURE, PICTURE]},
]
# The same for our renderer: a mark per picture.
MARKED = [
    {"role": "user", "content": f"{IMAGE}\n{IMAGE}\n{FIRST}"},
    {"role": "assistant", "content": "A cube."},
    {"role": "user", "content": f"Why{IMAGE}{IMAGE}"},
]


def rendered(template: str, messages: list[dict[str, Any]]) -> str:
    """As Hugging Face and the engine render: nothing is trimmed beyond the dashes."""
    text: str = (
        jinja2.Environment()
        .from_string(template)
        .render(messages=messages, add_generation_prompt=True)
    )
    return text


def expected(messages: list[dict[str, Any]], family: str, system: str | None) -> str:
    text = as_text(render(messages, 4, system, template=family))
    return text.replace(IMAGE, PICTURE_MARK)


@pytest.mark.parametrize("system", [None, SYSTEM])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_conversation_with_pictures(family: str, system: str | None) -> None:
    template = jinja_template(TEMPLATES[family], system)
    assert rendered(template, TALK) == expected(MARKED, family, system)


def test_a_system_message_replaces_the_systems_own() -> None:
    template = jinja_template(TEMPLATES["fastvlm"], SYSTEM)
    own = {"role": "system", "content": "You are a bird."}
    text = rendered(template, [own, *TALK])
    assert text == expected([own, *MARKED], "fastvlm", None)
    assert SYSTEM not in text


def test_an_empty_text_in_front_keeps_the_newline_away() -> None:
    content = [{"type": "text", "text": ""}, PICTURE, {"type": "text", "text": "What?"}]
    text = rendered(
        jinja_template(TEMPLATES["fastvlm"], None), [{"role": "user", "content": content}]
    )
    assert f"user\n{PICTURE_MARK}What?" in text


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_the_layout_of_the_hugging_face_conversion(system: str | None) -> None:
    template = jinja_template(TEMPLATES["chatml"], system, "transformers")
    marked = [{"role": "user", "content": f"{IMAGE}{IMAGE}{FIRST}"}, *MARKED[1:]]
    assert rendered(template, TALK) == expected(as_transformers(marked, 4), "chatml", system)


def test_a_family_that_moves_the_system_text_is_refused() -> None:
    with pytest.raises(ExportError, match="'gemma' moves the system text"):
        jinja_template(TEMPLATES["gemma"], None)


def test_quoted() -> None:
    text = 'it\'s \\ a\n"test"\r\t{{ x }}'
    assert rendered("{{ " + quoted(text) + " }}", []) == text
