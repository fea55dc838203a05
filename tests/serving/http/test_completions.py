"""The endpoint answers what `generate` does, to OpenAI's client and to plain requests."""

from __future__ import annotations

import json

import openai
import pytest

from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings
from tests.models.vlm.fast_vlm.small_model import pictures
from tests.serving.http.pictures_in_text import data_uri, part, text

pytestmark = pytest.mark.once

PICTURES = pictures(2, 31)
SHOWN = [part(data_uri(picture)) for picture in PICTURES]
BARE = {"type": "image_url", "image_url": SHOWN[1]["image_url"]["url"]}


@pytest.fixture(scope="module")
def openai_client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def expected(model, question, images=(), **settings):
    settings = RowSettings(**{"max_new_tokens": 6, **settings})
    inputs = {"prompts": question, "images": list(images) or None}
    return model.generate(inputs, settings=settings, return_logprobs=settings.logprobs or 0)


def chunks_of(response):
    """The objects of a stream."""
    lines = response.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def test_the_openai_client_at_once(model, openai_client):
    messages = [{"role": "user", "content": [SHOWN[0], text("What is it?")]}]
    got = openai_client.chat.completions.create(model="tiny", messages=messages, max_tokens=6)
    answer = expected(model, "What is it?", PICTURES[:1])
    assert got.choices[0].message.content == answer.text
    assert got.choices[0].message.role == "assistant"
    assert got.choices[0].finish_reason == answer.finish_reason
    assert got.usage.completion_tokens == len(answer.token_ids)
    assert got.usage.total_tokens == got.usage.prompt_tokens + len(answer.token_ids)
    assert got.id.startswith("chatcmpl-") and got.object == "chat.completion"
    assert [known.id for known in openai_client.models.list()] == ["tiny"]
    assert openai_client.models.retrieve("tiny").id == "tiny"


def test_the_openai_client_piece_by_piece(model, openai_client):
    stream = openai_client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Why?"}],
        max_completion_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    answer = expected(model, "Why?", max_new_tokens=12)
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces) == answer.text and len(pieces) > 3
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == answer.finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len(answer.token_ids)
    assert len({(c.id, c.created) for c in chunks}) == 1


def test_the_openai_client_understands_refusals(openai_client):
    messages = [{"role": "user", "content": "Why?"}]
    with pytest.raises(openai.BadRequestError) as caught:
        openai_client.chat.completions.create(model="tiny", messages=messages, logit_bias={"5": 1})
    assert caught.value.param == "logit_bias" and caught.value.code == "unsupported_parameter"
    with pytest.raises(openai.NotFoundError, match="'tiny' is"):
        openai_client.chat.completions.create(model="gpt-4o", messages=messages)


def test_lines_of_a_stream(ask):
    got = ask(stream=True)
    assert got.headers["content-type"].startswith("text/event-stream")
    assert got.headers["cache-control"] == "no-cache"
    first = chunks_of(got)[0]
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert first["object"] == "chat.completion.chunk" and "usage" not in first


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"temperature": 0.8, "top_p": 0.9, "seed": 4}, {}),
        ({"seed": 4}, {"temperature": 1.0}),
        ({"temperature": 1.3, "seed": 1, "top_k": 7}, {}),
        ({"stop": ["e", "a"]}, {}),
        ({"presence_penalty": 1.5, "frequency_penalty": 0.5}, {}),
        ({"repetition_penalty": 1.5, "no_repeat_ngram_size": 2}, {}),
        ({"min_tokens": 5}, {"min_new_tokens": 5}),
    ],
)
def test_settings_reach_the_rows(model, ask, fields, more):
    wanted = {name: value for name, value in fields.items() if name != "min_tokens"} | more
    choice = ask("What is a red cube?", **fields).json()["choices"][0]
    answer = expected(model, "What is a red cube?", **wanted)
    assert choice["message"]["content"] == answer.text
    assert choice["finish_reason"] == answer.finish_reason


def test_several_answers(model, ask):
    got = ask(n=3, temperature=1.0, seed=5).json()
    texts = [choice["message"]["content"] for choice in got["choices"]]
    assert texts == [expected(model, "Why?", temperature=1.0, seed=5 + i).text for i in range(3)]
    assert [choice["index"] for choice in got["choices"]] == [0, 1, 2]
    parts = [c["choices"][0] for c in chunks_of(ask(n=2, temperature=1.0, seed=5, stream=True))]
    for i in range(2):
        pieces = [p["delta"].get("content", "") for p in parts if p["index"] == i]
        assert "".join(pieces) == texts[i]


def test_logprobs(model, ask):
    known = ask(logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]["content"]
    answer = expected(model, "Why?", logprobs=2)
    wanted = [k for k in answer.logprobs if k.token not in model.stop_ids()]
    assert [round(k["logprob"], 3) for k in known] == [round(k.logprob, 3) for k in wanted]
    assert all(len(k["top_logprobs"]) == 2 for k in known)
    parts = [c["choices"][0] for c in chunks_of(ask(logprobs=True, stream=True))]
    entries = [entry for p in parts if p["logprobs"] for entry in p["logprobs"]["content"]]
    assert [entry["token"] for entry in entries] == [k["token"] for k in known]
    assert ask().json()["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(
    ("content", "same"),
    [
        ([SHOWN[0], text("Why?")], [SHOWN[0], text("Why?")]),
        ([text("Why?"), *SHOWN], [text("Why?"), *SHOWN]),
        ([text("a ball"), SHOWN[1], text("Why?")], [text("a ball"), SHOWN[1], text("Why?")]),
        ([SHOWN[1]], [SHOWN[1], text("describe the picture.")]),
        ([BARE, text("Why?")], [SHOWN[1], text("Why?")]),
    ],
)
def test_pictures_stand_where_they_stood(model, ask, content, same):
    got = ask(content).json()
    messages = [{"role": "user", "content": same}]
    answer = model.generate({"messages": messages}, max_new_tokens=6)
    assert got["choices"][0]["message"]["content"] == answer


def test_a_picture_in_front_is_asked_about_as_everywhere(model, ask):
    got = ask([SHOWN[0], text("Why?")]).json()
    assert got["choices"][0]["message"]["content"] == expected(model, "Why?", PICTURES[:1]).text


def test_roles_are_brought_into_order(model, client):
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "Why?"},
        {"role": "user", "content": [text("What is it?")]},
        {"role": "assistant", "content": "a cat"},
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "What now?"},
    ]
    plain = [
        {"role": "system", "content": "Be kind.\nBe short."},
        {"role": "user", "content": "Why?\nWhat is it?"},
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": "What now?"},
    ]
    body = {"messages": messages, "max_tokens": None, "max_completion_tokens": 5}
    got = client.post("/v1/chat/completions", json=body).json()
    answer = model.generate({"messages": plain}, max_new_tokens=5)
    assert got["choices"][0]["message"]["content"] == answer
    length = model.preprocessor.generate_preprocess({"messages": plain})["padding_mask"].sum()
    assert got["usage"]["prompt_tokens"] == length


def test_the_mark_of_a_picture_may_be_a_word(model, ask):
    words = "What does <image> mean?"
    got = ask(words)
    segments = model.preprocessor.render([{"role": "user", "content": "What does X mean?"}], 0, "")
    plain = len(model.preprocessor.encode_segments(segments)[0])
    assert got.status_code == 200
    assert got.json()["usage"]["prompt_tokens"] > plain + 3  # characters, no placeholders


def test_plain_fields_that_change_nothing(model, ask):
    harmless = {"model": "tiny", "user": "me", "metadata": {"a": "b"}, "store": False, "n": 1}
    neutral = {"response_format": {"type": "text"}, "tool_choice": "none", "logit_bias": {}}
    empty = dict.fromkeys(("tools", "temperature", "top_p", "stop", "max_completion_tokens"))
    got = ask(stream=False, **harmless, **neutral, **empty).json()
    assert got["choices"][0]["message"]["content"] == expected(model, "Why?").text
