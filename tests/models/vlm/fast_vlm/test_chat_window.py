"""Long chats: the oldest turns leave, the picture in view stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dl_techniques.errors import ImageError, PromptError
from dl_techniques.models.vlm.fast_vlm import Chat, FastVLMCausalLM
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import as_text, segments_of
from tests.models.vlm.fast_vlm.small_model import CONTEXT, make_model, pictures
from tests.models.vlm.fast_vlm.test_chat import Counter, _only_letters

NEW = 6
FIRST, SECOND = pictures(2, 5)


@pytest.fixture(scope="module")
def model() -> FastVLMCausalLM:
    return _only_letters(make_model(), None)


def talk(chat: Chat, turns: int, **first: Any) -> None:
    for i in range(turns):
        "".join(chat.ask(f"why is the cat {i} on the mat?", **(first if i == 0 else {})))


def words(chat: Chat) -> list[str]:
    return [as_text(segments_of(m["content"])) for m in chat.messages if m["role"] == "user"]


def test_the_oldest_turns_leave(model: FastVLMCausalLM) -> None:
    """What is left is answered as if nothing else had ever been said."""
    chat = Chat(model, max_new_tokens=NEW)
    turns = 0
    while not chat.forgotten:
        talk(chat, 1)
        turns += 1
        assert turns < 20
    assert turns > 3 and len(chat.messages) == 2 * (turns - chat.forgotten)
    assert len(chat._tokens(chat.messages[:-1], 0)) <= CONTEXT // 2
    fresh = {"messages": chat.messages[:-1]}
    assert model.generate(fresh, max_new_tokens=NEW) == chat.messages[-1]["content"]
    talk(chat, 1)
    assert chat.forgotten < turns  # half of the context was free
    chat.reset()
    assert chat.forgotten == 0


def test_the_last_picture_stays(model: FastVLMCausalLM) -> None:
    chat = Chat(model, max_new_tokens=NEW)
    "".join(chat.ask("what is this?", FIRST))
    "".join(chat.ask("and this?", SECOND))
    while chat.forgotten < 2:
        talk(chat, 1)
    assert chat.images == [SECOND] or np.array_equal(chat.images[0], SECOND)
    assert len(chat.images) == len(chat._rows) == 1
    assert words(chat)[0].startswith("<image>\n")
    assert sum(w.count("<image>") for w in words(chat)) == 1
    fresh = {"messages": chat.messages[:-1], "images": [SECOND]}
    assert model.generate(fresh, max_new_tokens=NEW) == chat.messages[-1]["content"]
    "".join(chat.ask("what is the new one?", FIRST))
    assert len(chat.images) == 2


def test_a_long_system_prompt_is_read_once(
    model: FastVLMCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = "the cat is on the mat and the ball is red " * 2
    chat = Chat(model, system_prompt=system, max_new_tokens=NEW)
    counter = Counter(monkeypatch, model.phases)
    while not chat.forgotten:
        talk(chat, 1)
    before = len(chat._tokens(chat.messages[:-1], 0))
    own = len(model.preprocessor.tokenizer.tokenize_plain(system))
    assert own > 15 and counter.read[-1] <= before - own


def test_a_question_that_alone_is_too_long(model: FastVLMCausalLM) -> None:
    """And a picture that cannot be read: nothing has left."""
    chat = Chat(model, max_new_tokens=NEW)
    talk(chat, 2, images=FIRST)
    before = list(chat.messages)
    with pytest.raises(PromptError, match="no room for an answer"):
        chat.ask("ball " * 300)
    with pytest.raises(ImageError):
        chat.ask("the red cube " * 8, "missing.png")
    assert chat.messages == before and chat.forgotten == 0 and len(chat.images) == 1


def test_where_only_the_question_stays_its_picture_does(model: FastVLMCausalLM) -> None:
    chat = Chat(model, max_new_tokens=NEW)
    talk(chat, 1, images=FIRST)
    long = "why is the red cube on the mat? " * 4
    while len(chat._tokens([{"role": "user", "content": long}], 0)) < CONTEXT // 2:
        long += "why? "
    "".join(chat.ask(long))
    if not chat.forgotten:
        "".join(chat.ask(long))
    assert len(chat.messages) == 2 and len(chat.images) == len(chat._rows) == 1
    fresh = {"messages": chat.messages[:1], "images": [FIRST]}
    assert model.generate(fresh, max_new_tokens=NEW) == chat.messages[-1]["content"]


def test_questions_of_parts(model: FastVLMCausalLM) -> None:
    plain, chat = Chat(model, max_new_tokens=NEW), Chat(model, max_new_tokens=NEW)
    expected = "".join(plain.ask("what is this?", FIRST))
    parts = [{"type": "image", "image": FIRST}, {"type": "text", "text": "what is this?"}]
    assert "".join(chat.ask(parts)) == expected
    again = [{"type": "image"}, {"type": "text", "text": "and this?"}]
    assert "".join(chat.ask(again, SECOND)) == "".join(plain.ask("and this?", SECOND))
    assert len(chat.images) == 2
