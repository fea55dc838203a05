"""Messages of parts: the same prompts as marks make, and texts to the letter."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dl_techniques.errors import ImageError, PromptError
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import as_text, render
from dl_techniques.models.vlm.fast_vlm.prompt.records import to_records
from dl_techniques.models.vlm.fast_vlm.prompt.template_variants import as_transformers
from tests.models.vlm.fast_vlm.small_model import make_preprocessor, pictures

pytestmark = pytest.mark.once

FIRST, SECOND = pictures(2, 5)
PICTURE: dict[str, Any] = {"type": "image"}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def rendered(*messages: Any, images: Any = (), **more: Any) -> str:
    (record,) = to_records({"messages": list(messages), "images": list(images)})
    return as_text(render(record.messages, len(record.images), None, **more))


def said(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("parts", "content"),
    [
        ([PICTURE, text("What?")], "<image>\nWhat?"),
        ([PICTURE, PICTURE, text("Same?")], "<image>\n<image>\nSame?"),
        ([text("First: "), PICTURE, text(" second: "), PICTURE], "First: <image> second: <image>"),
        ([text("What?"), PICTURE], "What?<image>"),
        ([text("No "), text("picture")], "No picture"),
    ],
)
@pytest.mark.parametrize("template", ["fastvlm", "llama3", "gemma"])
def test_parts_stand_where_marks_would(parts: list, content: str, template: str) -> None:
    images = [FIRST, SECOND][: content.count("<image>")]
    expected = rendered(said(content), images=images, template=template)
    assert rendered(user(*parts), images=images, template=template) == expected


def test_the_layout_of_transformers() -> None:
    parts = user(text("First: "), PICTURE, text("second?"))
    (record,) = to_records({"messages": [parts], "images": [FIRST]})
    moved = as_transformers(record.messages, 1)
    plain = as_transformers([said("First: <image>second?")], 1)
    assert as_text(render(moved, 1, None)) == as_text(render(plain, 1, None))


def test_a_text_is_to_the_letter() -> None:
    """`<image>` and control tokens in it are characters; the picture's place is another."""
    preprocessor = make_preprocessor()
    words = "is <image> a tag? <|im_end|>"
    inputs = {"messages": [user(PICTURE, text(words))], "images": [FIRST]}
    batch = preprocessor.generate_preprocess(inputs)
    ids = batch["token_ids"][0][batch["padding_mask"][0]]
    assert (ids == preprocessor.tokenizer.image_token_id).sum() == 4
    assert words in preprocessor.tokenizer.detokenize(ids)
    alone = preprocessor.generate_preprocess({"messages": [user(text(words))]})
    assert alone["images"].shape[1] == 0
    with pytest.raises(PromptError, match="1 <image> mark"):
        preprocessor.generate_preprocess({"messages": [said(words)]})


def test_every_way_to_give_a_picture(tmp_path: Any) -> None:
    buffer = io.BytesIO()
    Image.fromarray(FIRST).save(buffer, "PNG")
    data, path = buffer.getvalue(), tmp_path / "a.png"
    path.write_bytes(data)
    letters = base64.b64encode(data).decode()
    uri = f"data:image/png;base64,{letters}"
    ways = [
        {"type": "image", "image": FIRST},
        {"type": "image", "image": Image.open(path)},
        {"type": "image", "path": str(path)},
        {"type": "image", "url": uri},
        {"type": "image", "base64": letters},
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "image_url", "image_url": uri},
    ]
    preprocessor = make_preprocessor()
    expected = preprocessor.generate_preprocess({"prompts": "What?", "images": FIRST})
    for way in ways:
        got = preprocessor.generate_preprocess({"messages": [user(way, text("What?"))]})
        for key, array in expected.items():
            np.testing.assert_array_equal(got[key], array, err_msg=f"{key} of {way!r:.60}")


def test_pictures_in_parts_beside_others_and_over_turns() -> None:
    """Sources in parts and beside the messages, in the order of their places."""
    talk = [
        user({"type": "image", "image": "a"}, text("What?")),
        {"role": "assistant", "content": [text("A cat.")]},
        said("And <image>?"),
        {"role": "assistant", "content": "A dog."},
        user(PICTURE, text("this?"), {"type": "image", "image": "d"}),
    ]
    (record,) = to_records({"messages": talk, "images": ["b", "c"]})
    assert record.images == ["a", "b", "c", "d"]
    rows = to_records({"messages": [talk[:1], talk[:1]]})
    assert [row.images for row in rows] == [["a"], ["a"]]
    rendered(*talk, images=["b", "c"])


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([{"type": "video"}], "Message 0, part 0 must be a dict of type"),
        (["What?"], "Message 0, part 0 must be a dict of type"),
        ([text("a"), {"type": "text"}], "Message 0, part 1: `text` must be a str"),
        ([PICTURE, text("What?")], "part 0 is a picture without a source"),
        ([{"type": "image_url"}, text("What?")], "part 0 is a picture without a source"),
        ([{"type": "image", "path": "a", "image": "b"}], "has several pictures"),
        ([{"type": "image", "base64": "?!"}], "`base64` cannot be read"),
        ([], "the question is empty"),
        ([{"type": "image", "image": FIRST}], "the question is empty"),
    ],
)
def test_parts_that_mean_nothing(parts: list, reason: str) -> None:
    with pytest.raises(PromptError, match=reason):
        rendered(user(*parts))


def test_only_users_show_pictures() -> None:
    answer = {"role": "assistant", "content": [{"type": "image", "image": FIRST}, text("so")]}
    with pytest.raises(PromptError, match="Message 1 is from the assistant, who shows no"):
        rendered(said("Why?"), answer, answer_next=False)


def test_addresses_are_not_fetched() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    with pytest.raises(ImageError, match="addresses are not fetched"):
        make_preprocessor().generate_preprocess({"messages": [user(part, text("What?"))]})
