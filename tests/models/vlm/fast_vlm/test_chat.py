"""Chat: the answers of re-running everything, at the cost of the new question."""

from __future__ import annotations

from typing import Any

import keras
import keras_hub
import numpy as np
import pytest

from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm import Chat, FastVLMBackbone, FastVLMCausalLM
from tests.models.vlm.fast_vlm.small_model import (
    make_decoder,
    make_model,
    make_preprocessor,
    pictures,
    randomize,
)

NEW = 6
FIRST, SECOND = pictures(2, 5)


@pytest.fixture(scope="module")
def model() -> Any:
    model = make_model()
    # Answers of a random model are mostly broken bytes; let it write letters.
    bias = np.zeros(model.backbone.text_backbone.vocabulary_size)
    return _only_letters(model, bias)


def _only_letters(model: Any, bias: Any) -> Any:
    """Makes the decoder prefer tokens that are plain words, by the length of their embeddings."""
    tokenizer = model.preprocessor.tokenizer
    table = model.backbone.token_embedding
    weight = np.array(table.get_weights()[0])
    for token, i in tokenizer.vocabulary.items():
        if not token.strip("Ġ").isascii() or not token.strip("Ġ").isalpha():
            weight[i] *= 0.05
    table.set_weights([weight, *table.get_weights()[1:]])
    return model


class Counter:
    """Counts what the phases are asked to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, phases: Any) -> None:
        self.pictures, self.read = 0, []
        encode, prefill, extend = phases.encode_images, phases.prefill, phases.extend

        def count_encode(images: Any, used: Any = None) -> Any:
            self.pictures += len(images)
            return encode(images, used)

        def count_prefill(prompts: Any, *more: Any) -> Any:
            self.read.append(prompts.length)
            return prefill(prompts, *more)

        def count_extend(prompts: Any, *more: Any) -> Any:
            self.read.append(prompts.length)
            return extend(prompts, *more)

        monkeypatch.setattr(phases, "encode_images", count_encode)
        monkeypatch.setattr(phases, "prefill", count_prefill)
        monkeypatch.setattr(phases, "extend", count_extend)


def rerun(model: Any, chat: Any, turn: Any, images: Any, **more: Any) -> Any:
    """The answer to question number `turn` when the whole conversation is asked at once."""
    talk = {"messages": list(chat.messages[: 2 * turn + 1]), "images": images}
    return model.generate(talk, max_new_tokens=NEW, **more)


@pytest.mark.parametrize("sampler", ["greedy", keras_hub.samplers.TopKSampler(k=4, seed=2)])
def test_turns_equal_re_running_the_conversation(model: Any, sampler: Any) -> None:
    chat = Chat(model, max_new_tokens=NEW, sampler=sampler)
    turns = [("what is this?", FIRST), ("why is it red?", None), ("and this cat?", SECOND)]
    answers = ["".join(chat.ask(question, images)) for question, images in turns]
    assert all(answer.strip() for answer in answers)
    assert [m["content"] for m in chat.messages[1::2]] == answers
    if sampler == "greedy":
        seen = [[FIRST], [FIRST], [FIRST, SECOND]]
        assert answers == [rerun(model, chat, i, seen[i], sampler=sampler) for i in range(3)]


def test_nothing_is_computed_twice(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = Chat(model, max_new_tokens=NEW)
    counter = Counter(monkeypatch, model.phases)
    "".join(chat.ask("what is this?", FIRST))
    assert counter.pictures == 1
    "".join(chat.ask("why is it red?"))
    assert counter.pictures == 1
    whole = len(chat._tokens(chat.messages[:3], 1))
    assert counter.read[1] < whole - counter.read[0]
    "".join(chat.ask("and this?", SECOND))
    assert counter.pictures == 2 and len(counter.read) == 3


def count_steps(monkeypatch: pytest.MonkeyPatch, phases: Any) -> Any:
    """A list that grows by the number of tokens of every decoding step."""
    steps, decode = [], phases.decode_step
    monkeypatch.setattr(phases, "decode_step", lambda *a: steps.append(len(a[0])) or decode(*a))
    return steps


def test_the_work_of_a_turn_does_not_grow_with_the_turns(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn reads its own tokens once, however many turns went before; a step reads one."""
    chat, steps = Chat(model, max_new_tokens=NEW), count_steps(monkeypatch, model.phases)
    counter = Counter(monkeypatch, model.phases)
    for turn in range(5):
        before = len(steps)
        "".join(chat.ask("what is this?", FIRST if turn == 0 else None))
        assert steps[before:] == [1] * (len(steps) - before) and len(steps) - before < NEW
    assert counter.pictures == 1 and len(counter.read) == 5
    # Answers differ in length, and the last token of one is read with the next question.
    assert max(counter.read[1:]) - min(counter.read[1:]) <= NEW
    assert sum(counter.read) + len(steps) <= len(chat._read) + 5 * NEW


def test_a_second_question_reads_a_seventh_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published models' 256 rows a picture: neither encoded nor read a second time."""
    picture = keras.Input((32, 32, 3))
    encoder = keras.Model(picture, keras.layers.Conv2D(6, 2, 2)(picture))
    preprocessor = make_preprocessor()
    preprocessor.num_image_tokens, preprocessor.sequence_length = 256, 512
    decoder = make_decoder("qwen", preprocessor.tokenizer.vocabulary_size())
    backbone = FastVLMBackbone(encoder, decoder)
    randomize(backbone)
    model = _only_letters(FastVLMCausalLM(backbone, preprocessor), None)
    chat, counter = Chat(model, max_new_tokens=NEW), Counter(monkeypatch, model.phases)
    "".join(chat.ask("what is this?", FIRST))
    "".join(chat.ask("why is it red?"))
    assert counter.pictures == 1 and counter.read[0] > 256
    assert counter.read[1] <= 0.15 * counter.read[0]


def test_an_abandoned_answer_is_remembered_as_far_as_read(model: Any) -> None:
    chat = Chat(model, max_new_tokens=NEW)
    answer = chat.ask("what is this?", FIRST)
    heard = next(answer)
    after = "".join(chat.ask("why is it red?"))
    assert chat.messages[1]["content"] == heard and list(answer) == []
    assert after == rerun(model, chat, 1, [FIRST])


def test_refused_questions_leave_the_chat_as_it_was(model: Any) -> None:
    chat = Chat(model, max_new_tokens=NEW)
    "".join(chat.ask("what is this?", FIRST))
    before = list(chat.messages)
    for question, images in [(" ", None), ("<image>?", None), ("ball " * 300, None)]:
        with pytest.raises(PromptError):
            chat.ask(question, images)
    assert chat.messages == before and len(chat.images) == 1
    assert "".join(chat.ask("why is it red?")) == rerun(model, chat, 1, [FIRST])


def test_a_silent_answer_passes_its_pictures_on(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = Chat(model, max_new_tokens=NEW)
    monkeypatch.setattr(model, "_detokenize", lambda ids: "")
    assert "".join(chat.ask("what is this?", FIRST)) == ""
    assert chat.messages == [] and chat.images == []
    monkeypatch.undo()
    "".join(chat.ask("why is it red?"))
    assert chat.messages[0]["content"] == "<image>\nwhy is it red?" and len(chat.images) == 1
    assert chat.messages[1]["content"] == rerun(model, chat, 0, [FIRST])


def test_a_failure_while_answering_loses_nothing(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = Chat(model, max_new_tokens=NEW)
    "".join(chat.ask("what is this?", FIRST))
    expected = Chat(model, max_new_tokens=NEW)
    "".join(expected.ask("what is this?", FIRST))
    broken = chat.ask("why is it red?")
    with monkeypatch.context() as patch:
        patch.setattr(type(model.phases), "extend", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next(broken)
    assert "".join(chat.ask("why is it red?")) == "".join(expected.ask("why is it red?"))


def test_reset_and_the_system_prompt(model: Any) -> None:
    chat = Chat(model, system_prompt="be kind", max_new_tokens=NEW)
    first = "".join(chat.ask("what is this?", FIRST))
    chat.reset()
    assert chat.messages == [] and chat.images == []
    assert "".join(chat.ask("what is this?", FIRST)) == first
    talk = [{"role": "system", "content": "be kind"}, chat.messages[0]]
    told = model.generate({"messages": talk, "images": [FIRST]}, max_new_tokens=NEW)
    assert told == first


def test_beam_search_cannot_chat(model: Any) -> None:
    with pytest.raises(ValueError, match="beam"):
        Chat(model, sampler="beam")


@pytest.mark.once
@pytest.mark.parametrize("question", [None, 7, b"Why?", "a\udcff"])
def test_questions_that_are_no_text(model: Any, question: Any) -> None:
    chat = Chat(model, max_new_tokens=2)
    for images in (None, FIRST):
        with pytest.raises(PromptError, match="^the question (must be a str|cannot be written)"):
            chat.ask(question, images=images)
    assert chat.messages == [] and chat.images == []
    with pytest.raises(PromptError, match="^`system_prompt` cannot be written as UTF-8"):
        Chat(model, system_prompt="\ud800").ask("Why?")
