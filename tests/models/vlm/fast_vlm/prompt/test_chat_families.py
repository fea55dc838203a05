"""Conversations in the marks of each family, as strings."""

from __future__ import annotations

import pytest

from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.prompt.chat_families import (
    TEMPLATES,
    get_template,
    template_of,
)
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import as_text, render

TURNS = [
    {"role": "user", "content": " Hi "},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "<image>Why?"},
]
EXPECTED = {
    "chatml": (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n"
        "<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\n<image>Why?<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    "llama3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nYes.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n<image>Why?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "phi3": (
        "<|system|>Be kind.<|end|><|user|> Hi <|end|><|assistant|>Yes.<|end|>"
        "<|user|><image>Why?<|end|><|assistant|>"
    ),
    "phi4": (
        "<|im_start|>system<|im_sep|>Be kind.<|im_end|><|im_start|>user<|im_sep|> Hi <|im_end|>"
        "<|im_start|>assistant<|im_sep|>Yes.<|im_end|>"
        "<|im_start|>user<|im_sep|><image>Why?<|im_end|><|im_start|>assistant<|im_sep|>"
    ),
    "gemma": (
        "<bos><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\nYes."
        "<end_of_turn>\n<start_of_turn>user\n<image>Why?<end_of_turn>\n<start_of_turn>model\n"
    ),
    "plain": "</s>Be kind.\n Hi \nYes.</s><image>Why?\n",
}
EXPECTED["fastvlm"] = EXPECTED["chatml"]


def test_every_template_has_its_string() -> None:
    assert set(EXPECTED) == set(TEMPLATES)


@pytest.mark.parametrize("name", list(EXPECTED))
def test_a_conversation_in_the_marks_of_the_family(name: str) -> None:
    segments = render(TURNS, num_images=1, system_prompt="Be kind.", template=name)
    assert as_text(segments) == EXPECTED[name]
    learned = [(s.text, s.kind) for s in segments if s.learn]
    assert learned == [("Yes.", "text"), (str(TEMPLATES[name].end), "control")]
    assert [s.kind for s in segments].count("image") == 1


def test_a_mark_in_the_system_text_is_no_picture() -> None:
    for name in TEMPLATES:
        segments = render(TURNS[:1], system_prompt="Say <image>.", template=name)
        assert "image" not in [s.kind for s in segments]
        assert "Say <image>." in as_text(segments)


def test_control_tokens_tell_the_template() -> None:
    assert template_of({"<|im_start|>", "<|im_sep|>"}) == "phi4"
    assert template_of({"<|im_start|>"}) == "chatml"
    with pytest.raises(PromptError, match="chat template is unknown"):
        template_of({"a"})


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(PromptError, match="did you mean 'llama3'"):
        get_template("lama3")
