"""What is wrong with a request is said in OpenAI's form, with the place and the right code."""

from __future__ import annotations

import base64
import time

import numpy as np
import pytest

from dl_techniques.errors import PromptError, QueueFullError, ServingError, StoppedError
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings
from dl_techniques.serving.http.refusals import refusal_of
from dl_techniques.serving.questions import make_question
from tests.models.vlm.fast_vlm.small_model import pictures
from tests.serving.http.pictures_in_text import data_uri, part, text

pytestmark = pytest.mark.once

PICTURE = data_uri(pictures(1, 3)[0])


def encoded(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def said(role: str, content: object) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content}]}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": [{}]}, "functions"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"audio": {}}, "audio"),
        ({"best_of": 3}, "best_of"),
        ({"temprature": 0.3}, "temprature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": -3}, "seed"),
        ({"n": 9}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
        ({"messages": []}, "messages"),
        (said("tool", "x"), "messages[0].role"),
        (said("user", 5), "messages[0].content"),
        (said("user", "  "), "messages"),
        (said("user", []), "messages"),
        (said("assistant", "x"), "messages"),
        (said("user", [{"type": "input_audio"}]), "messages[0].content[0]"),
        (said("system", [part(PICTURE)]), "messages[0].content[0]"),
        (said("user", [{"type": "image_url"}]), "messages[0].content[0].image_url"),
    ],
)
def test_fields(ask, fields, param):
    got = ask(**fields)
    error = got.json()["error"]
    assert got.status_code == 400 and error["param"] == param
    assert error["type"] == "invalid_request_error" and error["message"] and error["code"]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        (encoded(b"no picture at all"), "invalid_image"),
        (encoded(b"<svg></svg>"), "invalid_image"),
        (encoded(b"%!PS-Adobe-3.0 EPSF-3.0\n"), "invalid_image"),
        ("data:image/png;base64,???", "invalid_image"),
        ("data:image/png;base64,", "invalid_image"),
        (PICTURE[: len(PICTURE) // 2], "invalid_image"),
        ("http://example.com/cat.png", "image_url_not_allowed"),
        ("https://example.com/cat.png", "image_url_not_allowed"),
        ("file:///etc/hostname", "image_url_not_allowed"),
        ("/etc/hostname", "image_url_not_allowed"),
    ],
)
def test_pictures(ask, url, code):
    got = ask([part(PICTURE), text("Why?"), part(url)])
    error = got.json()["error"]
    assert (got.status_code, error["code"]) == (400, code)
    assert error["param"] == "messages[0].content[2].image_url"


def test_too_many_pixels_and_pictures(ask):
    large = data_uri(np.zeros((4100, 4000), "uint8"))
    got = ask([part(large), text("Why?")])
    assert (got.status_code, got.json()["error"]["code"]) == (400, "image_too_large")
    got = ask([*[part(PICTURE)] * 17, text("Why?")])
    assert (got.status_code, got.json()["error"]["code"]) == (400, "too_many_images")


def test_what_does_not_fit_the_context(ask):
    for content, most in (("why " * 300, 5), ("Why?", 190)):
        got = ask(content, max_tokens=most)
        error = got.json()["error"]
        assert (got.status_code, error["code"]) == (400, "context_length_exceeded")
        assert "192" in error["message"]


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b"", "application/json", 400, "invalid_value"),
        (b"[]", "application/json", 400, "invalid_value"),
        (b"{}", "application/json; charset=utf-8", 400, "invalid_value"),
        (b"\xff\xfe", "application/json", 400, "invalid_json"),
        (b"[" * 100_000, "application/json", 400, "invalid_request"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"{}", "", 415, "unsupported_media_type"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    ],
)
def test_bodies(client, content, kind, status, code):
    headers = {"content-type": kind}
    got = client.post("/v1/chat/completions", content=content, headers=headers)
    assert (got.status_code, got.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("GET", "/v1/models/other", 404, "model_not_found"),
        ("GET", "/docs", 404, "unknown_url"),
    ],
)
def test_paths(client, method, path, status, code):
    got = client.request(method, path)
    assert (got.status_code, got.json()["error"]["code"]) == (status, code)
    assert got.headers["x-request-id"]


def test_every_error_status_is_documented(client):
    document = client.get("/openapi.json").json()
    statuses = set(document["paths"]["/v1/chat/completions"]["post"]["responses"])
    assert {"200", "400", "401", "403", "404", "408", "413", "415", "429", "500", "503"} == statuses
    assert "ErrorResponse" in document["components"]["schemas"]


def test_a_full_queue(engine, model, ask):
    messages = [{"role": "user", "content": "Why?"}]
    long = make_question(model, messages, settings=RowSettings(max_new_tokens=150))
    replies = []
    step = engine._batch._rows.step
    engine._batch._rows.step = lambda *args: time.sleep(0.02) or step(*args)
    try:
        while engine.running < engine.options.rows or engine.waiting < engine.options.waiting:
            if engine.waiting < engine.options.waiting:
                replies.append(engine.submit(long))
            time.sleep(0.001)
        got = ask()
    finally:
        engine._batch._rows.step = step
        for reply in replies:
            reply.cancel()
    assert got.status_code == 429 and got.json()["error"]["code"] == "queue_full"
    assert got.headers["retry-after"] == "1"
    for reply in replies:
        reply.join()


def test_errors_of_the_engine():
    for error, status, code in (
        (QueueFullError("full"), 429, "queue_full"),
        (StoppedError("stops"), 503, "not_ready"),
        (PromptError("wrong"), 400, "invalid_value"),
        (ServingError("the model failed"), 500, "internal_error"),
        (RuntimeError("secret"), 500, "internal_error"),
    ):
        refusal = refusal_of(error)
        assert (refusal.status, refusal.code) == (status, code)
        assert "secret" not in refusal.message
        assert ("retry-after" in refusal.response().headers) == (status in (429, 503))
