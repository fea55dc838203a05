"""Where the two templates put pictures and newlines."""

from __future__ import annotations

from typing import Any

import pytest

from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import as_text, render
from dl_techniques.models.vlm.fast_vlm.prompt.template_variants import (
    as_transformers,
    jinja_template,
)
from tests.models.vlm.fast_vlm.small_model import make_preprocessor

pytestmark = pytest.mark.once

ASK = [{"role": "user", "content": "What?"}]


def text(messages: Any, images: Any) -> Any:
    return as_text(render(as_transformers(messages, images), images, None))


@pytest.mark.parametrize(
    ("images", "body"), [(0, "\nWhat?"), (1, "<image>\nWhat?"), (2, "<image><image>\nWhat?")]
)
def test_pictures_come_first(images: int, body: str) -> None:
    expected = f"<|im_start|>user\n{body}<|im_end|>\n<|im_start|>assistant\n"
    assert text(ASK, images) == expected


def test_marks_say_which_message_has_the_pictures() -> None:
    messages = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "And <image> this?"},
    ]
    found = text(messages, 1)
    assert "user\n\nOne?" in found and "assistant\n\nYes." in found
    assert "user\n<image>\nAnd  this?" in found


def test_mistakes_are_still_named() -> None:
    with pytest.raises(PromptError, match="empty"):
        text([{"role": "user", "content": " "}], 0)
    with pytest.raises(PromptError, match="1 <image> mark"):
        text([{"role": "user", "content": "<image> a"}], 2)
    with pytest.raises(PromptError, match="role"):
        text("What?", 0)


def test_the_preprocessor_keeps_its_template() -> None:
    preprocessor = make_preprocessor()
    config = preprocessor.get_config()
    assert config["template"] == "apple"
    other = type(preprocessor).from_config({**config, "template": "transformers"})
    assert other.get_config()["template"] == "transformers"
    plain = as_text(preprocessor.render(ASK, 2))
    assert "<image>\n<image>\nWhat?" in plain
    assert "<image><image>\nWhat?" in as_text(other.render(ASK, 2))
    with pytest.raises(ValueError, match="template='x'"):
        type(preprocessor).from_config({**config, "template": "x"})


def test_configs_without_a_template_are_apple_s() -> None:
    preprocessor = make_preprocessor()
    config = preprocessor.get_config()
    del config["template"]
    assert type(preprocessor).from_config(config).template == "apple"


def test_the_written_template_quotes_the_system_prompt() -> None:
    assert "it\\'s a\\nprompt" in jinja_template("it's a\nprompt")
    assert "system" not in jinja_template(None)
