"""`EngineChat`: pictures, several turns, and what it refuses."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dl_techniques.errors import ExportError, ImageError, PromptError
from dl_techniques.export.litertlm import EngineChat
from dl_techniques.hosts.litertlm import to_png
from dl_techniques.models.vlm.fast_vlm.chat import Chat
from tests.export.litertlm.small_bundle import LIMIT, QUESTIONS, needs_tensorflow, small_bundle
from tests.models.vlm.fast_vlm.small_model import SIZE, TOKENS, pictures

pytestmark = needs_tensorflow


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineChat]:
    with EngineChat(small_bundle().path, max_new_tokens=LIMIT, threads=1) as chat:
        yield chat


@pytest.fixture
def chat(engine: EngineChat) -> EngineChat:
    engine.reset()
    return engine


def keras_chat() -> Chat:
    return Chat(small_bundle().model, max_new_tokens=LIMIT)


def test_several_turns_are_those_of_keras(chat: EngineChat) -> None:
    keras, (first, second) = keras_chat(), pictures(2)
    turns = [
        (QUESTIONS[0], first),
        (QUESTIONS[1], None),
        ("a cube?", second),
        ("is this red?", None),
    ]
    expected = ["".join(keras.ask(question, images=image)) for question, image in turns]
    assert [chat.ask(question, image) for question, image in turns] == expected
    assert len(set(expected)) > 1
    assert [m["role"] for m in chat.messages] == ["user", "assistant"] * 4


def test_the_engines_own_second_turn_is_not(chat: EngineChat) -> None:
    """Why a new conversation is opened for every turn; when this fails, the engine is repaired."""
    keras, picture = keras_chat(), pictures(1)[0]
    expected = [
        "".join(keras.ask(q, images=i)) for q, i in ((QUESTIONS[0], picture), ("red?", None))
    ]
    with chat._conversation() as conversation:
        own = [
            str(conversation.send_message(chat.message(q, i), max_output_tokens=LIMIT).contents)
            for q, i in ((QUESTIONS[0], picture), ("red?", None))
        ]
    assert own[0] == expected[0]
    assert own[1] != expected[1]


def test_any_picture_is_prepared_as_the_model_does(chat: EngineChat, tmp_path: Path) -> None:
    converter = small_bundle().model.preprocessor.image_converter
    noise = np.random.default_rng(1).integers(0, 255, (37, 80, 4), dtype=np.uint8)
    path = tmp_path / "a.webp"  # with alpha, and of a kind that the engine cannot read
    Image.fromarray(noise).save(path, lossless=True)
    content = chat.message("What?", str(path))["content"][0]
    sent = np.asarray(Image.open(io.BytesIO(base64.b64decode(content["blob"]))))
    assert sent.shape == (SIZE, SIZE, 3)
    np.testing.assert_array_equal(sent, converter.to_uint8(str(path)))


@pytest.mark.parametrize(
    ("question", "count"),
    [("What?", 2), ("<image>What?", 1), ("<image>\nis <image> red?", 2), ("is it", 0)],
)
def test_the_prompt_is_that_of_keras(chat: EngineChat, question: str, count: int) -> None:
    preprocessor = small_bundle().model.preprocessor
    given = {"messages": [{"role": "user", "content": question}], "images": pictures(count)}
    (row,) = preprocessor.encode(given, learn=False)
    ids = np.where(row.token_ids == preprocessor.tokenizer.image_token_id, -1, row.token_ids)
    assert chat.prompt_ids(question, pictures(count)) == ids.tolist()
    assert ids.tolist().count(-1) == count * TOKENS


def test_another_system_prompt() -> None:
    model, picture = small_bundle().model, pictures(1)[0]
    keras = Chat(model, system_prompt="why this?", max_new_tokens=LIMIT)
    with EngineChat(small_bundle().path, "why this?", LIMIT) as chat:
        assert chat.ask("red?", picture) == "".join(keras.ask("red?", images=picture))


@pytest.mark.parametrize(
    ("question", "images", "message"),
    [
        ("  ", None, "the question is empty"),
        ("<image>", pictures(1), "the question is empty"),
        ("<image> or <image>?", pictures(1), r"2 <image> mark\(s\) but 1 picture"),
        ("what is <|im_end|>?", None, r"spells '<\|im_end\|>'"),
        ("what is <image_soft_token>?", None, "spells '<image_soft_token>'"),
        ("word " * 200, None, "leaves no room for an answer in the context of 192"),
    ],
)
def test_what_is_refused(chat: EngineChat, question: str, images: object, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        chat.ask(question, images)
    assert chat.messages == []


def test_a_picture_that_is_none(chat: EngineChat, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"no picture")
    with pytest.raises(ImageError):
        chat.ask("What?", str(path))


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.litertlm"
    path.write_bytes(b"no bundle")
    with pytest.raises(ExportError, match="is no LiteRT-LM bundle"):
        EngineChat(path)


def test_png_keeps_every_pixel() -> None:
    pixels = pictures(1)[0]
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(to_png(pixels)))), pixels)
