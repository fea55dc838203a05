"""Keywords of a call: what each row obeys, and what stays compiled."""

from __future__ import annotations

from typing import Any

import keras_hub
import numpy as np
import pytest

from dl_techniques.errors import SamplingError
from dl_techniques.models.vlm.fast_vlm import Chat, FastVLMCausalLM
from dl_techniques.models.vlm.fast_vlm.answer import choice
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_choice import AnswerRow, choose_tokens
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_settings import RowSettings
from tests.models.vlm.fast_vlm.small_model import make_model, pictures

NEW = 12
QUESTIONS = ["Why?", "What is a red cube here?", "Why is the cat on the mat, and not the ball?"]
IMAGES = [pictures(1, 1), [], pictures(2, 2)]
BATCH: dict[str, Any] = {"prompts": QUESTIONS, "images": IMAGES}


@pytest.fixture(scope="module")
def model() -> FastVLMCausalLM:
    return make_model()


def one(i: int) -> dict[str, Any]:
    return {"prompts": QUESTIONS[i], "images": IMAGES[i] or None}


def written(model: FastVLMCausalLM, inputs: Any, **more: Any) -> Any:
    """Tokens of every answer."""
    told = model.generate(inputs, stop_token_ids=None, return_logprobs=0, **more)
    return told.token_ids if not isinstance(told, list) else [t.token_ids for t in told]


def by_hand(model: FastVLMCausalLM, i: int, settings: RowSettings, steps: int) -> list[int]:
    """The answer to question `i`, chosen from the logits of the plain forward pass."""
    inputs = model.preprocessor.generate_preprocess(one(i))
    start = int(inputs["padding_mask"].sum())
    row = AnswerRow(settings, inputs["token_ids"][0, :start])
    logits, state = model.prefill(inputs, model.encode_images(inputs["images"]), steps)
    for step in range(steps):
        tokens = choose_tokens(np.array(logits), [row])
        if step + 1 < steps:
            logits, state = model.decode_step(tokens, state)
    return row.tokens


def test_greedy_without_more_stays_compiled(
    model: FastVLMCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop texts and lengths do not need the host; nor do settings that all draw alike."""
    plain = written(model, BATCH, max_new_tokens=NEW)
    texts = model.generate(BATCH, max_new_tokens=NEW, stop_token_ids=None)
    monkeypatch.setattr(choice, "RowChooser", lambda rows: 1 / 0)
    assert model.generate(BATCH, max_new_tokens=NEW, stop_token_ids=None) == texts
    model.generate(BATCH, max_new_tokens=NEW, stop="zzz")
    model.generate(BATCH, settings=[RowSettings(max_new_tokens=n) for n in (1, 2, 3)])
    model.generate(BATCH, max_new_tokens=2, settings=RowSettings(temperature=0.5, top_k=3))
    with pytest.raises(ZeroDivisionError):
        model.generate(BATCH, max_new_tokens=2, repetition_penalty=1.1)
    monkeypatch.undo()
    assert written(model, BATCH, max_new_tokens=NEW, temperature=0.0) == plain


def test_every_row_has_settings_of_its_own(model: FastVLMCausalLM) -> None:
    """Together as alone: greedy, drawn, penalized, of different lengths."""
    rows = [
        RowSettings(repetition_penalty=1.8, max_new_tokens=5),
        RowSettings(temperature=2.0, top_k=9, seed=3, max_new_tokens=9),
        RowSettings(no_repeat_ngram_size=1, max_new_tokens=NEW),
    ]
    together = written(model, BATCH, settings=rows)
    alone = [written(model, one(i), settings=row) for i, row in enumerate(rows)]
    assert together == alone
    assert [len(answer) for answer in together] == [5, 9, NEW]
    assert len(set(together[2])) == NEW
    assert together == [by_hand(model, i, r, len(together[i])) for i, r in enumerate(rows)]
    assert together != written(model, BATCH, settings=[RowSettings(max_new_tokens=5)] * 3)


def test_keywords_are_for_all_rows(model: FastVLMCausalLM) -> None:
    options: dict[str, Any] = {"repetition_penalty": 1.8, "frequency_penalty": 0.5}
    settings = RowSettings(**options, max_new_tokens=NEW)
    expected = [by_hand(model, i, settings, NEW) for i in range(3)]
    assert written(model, BATCH, max_new_tokens=NEW, **options) == expected
    rows = [RowSettings(max_new_tokens=NEW)] * 3
    assert written(model, BATCH, settings=rows, **options) == expected


def test_draws_by_keywords_are_those_of_the_sampler(model: FastVLMCausalLM) -> None:
    """Compiled or, beside a penalty, on the host: one seed, one answer."""
    sampler = keras_hub.samplers.TopPSampler(p=0.8, k=20, temperature=1.5)
    expected = written(model, BATCH, max_new_tokens=NEW, sampler=sampler, seed=5)
    options: dict[str, Any] = {"temperature": 1.5, "top_p": 0.8, "top_k": 20, "seed": 5}
    assert written(model, BATCH, max_new_tokens=NEW, **options) == expected
    texts = model.generate(BATCH, max_new_tokens=NEW, stop_token_ids=None, **options)
    assert texts == model.generate(
        BATCH, max_new_tokens=NEW, stop_token_ids=None, sampler=sampler, seed=5
    )
    assert written(model, BATCH, max_new_tokens=NEW, **{**options, "seed": 6}) != expected


def test_seeds_of_settings_are_taken_as_they_are(model: FastVLMCausalLM) -> None:
    """As a list of seeds is: equal rows give equal answers."""
    settings = RowSettings(temperature=1.5, seed=5)
    own = written(model, [one(0), one(0)], max_new_tokens=NEW, settings=settings)
    assert own[0] == own[1] == by_hand(model, 0, settings, NEW)
    sampler = keras_hub.samplers.RandomSampler(temperature=1.5)
    seeded = written(model, [one(0)], max_new_tokens=NEW, sampler=sampler, seed=[5])
    assert seeded == own[:1]
    unseeded = RowSettings(temperature=1.5)
    pair = written(model, [one(0), one(0)], max_new_tokens=NEW, settings=unseeded)
    assert pair[0] != pair[1]


def test_a_limit_on_a_draw_makes_one(model: FastVLMCausalLM) -> None:
    """As on the command line: top_k alone means temperature 1."""
    drawn = written(model, BATCH, max_new_tokens=NEW, top_k=40, seed=1)
    assert drawn == written(model, BATCH, max_new_tokens=NEW, top_k=40, seed=1, temperature=1.0)
    assert drawn != written(model, BATCH, max_new_tokens=NEW)


def test_stop_texts_of_several_tokens(model: FastVLMCausalLM) -> None:
    """Rows end where their own stop text is complete; a stream shows the same."""
    free = model.generate(BATCH, max_new_tokens=30, stop_token_ids=None)
    stops = [text[5:8] for text in free]
    rows = [RowSettings(stop=stop, max_new_tokens=30) for stop in stops]
    told = model.generate(BATCH, settings=rows, stop_token_ids=None, return_logprobs=0)
    for i, (text, stop, answer) in enumerate(zip(free, stops, told, strict=True)):
        expected = text[: text.index(stop)]
        assert answer.text == expected and answer.finish_reason == "stop"
        assert len(answer.token_ids) == len(answer.logprobs) < 30
        assert stop in model._detokenize(answer.token_ids)
        stream = model.stream(one(i), max_new_tokens=30, stop_token_ids=None, stop=["never!", stop])
        assert "".join(stream) == expected == stream.text and stream.stopped == stop
        assert stream.token_ids == answer.token_ids
    whole = model.generate(
        one(0), max_new_tokens=30, stop_token_ids=None, stop=stops[0], strip_prompt=False
    )
    assert whole.endswith(f"{QUESTIONS[0]}\nassistant\n{told[0].text}")


def test_an_answer_of_at_least_some_tokens(model: FastVLMCausalLM) -> None:
    """Every other token may end it, but not before its least length."""
    free = written(model, one(0), max_new_tokens=NEW)
    stops = tuple(set(free))
    ask = {"stop_token_ids": stops, "max_new_tokens": NEW}
    assert len(model.generate(one(0), return_logprobs=0, **ask).token_ids) == 1
    told = model.generate(one(0), return_logprobs=0, min_new_tokens=4, **ask)
    assert len(told.token_ids) >= 5 and not set(told.token_ids[:4]) & set(stops)
    stream = model.stream(one(0), min_new_tokens=4, **ask)
    assert "".join(stream) == told.text


def test_log_probabilities(model: FastVLMCausalLM) -> None:
    """Of the plain forward pass, the likeliest included; arrays say the same."""
    told = model.generate(BATCH, max_new_tokens=4, stop_token_ids=None, return_logprobs=3)
    inputs = model.preprocessor.generate_preprocess(BATCH)
    logits, state = model.prefill(inputs, model.encode_images(inputs["images"]), 4)
    for step in range(4):
        raw = np.array(logits, "float64")
        expected = raw - np.log(np.exp(raw).sum(axis=1, keepdims=True))
        tokens = np.argmax(raw, axis=1)
        for row, answer in enumerate(told):
            known = answer.logprobs[step]
            assert known.token == tokens[row] == known.top[0][0]
            assert known.logprob == pytest.approx(expected[row].max(), abs=1e-4)
            np.testing.assert_allclose(
                [v for _, v in known.top], np.sort(expected[row])[:-4:-1], atol=1e-4
            )
        logits, state = model.decode_step(tokens.astype("int32"), state)
    assert {answer.finish_reason for answer in told} == {"length"}
    bare = FastVLMCausalLM(model.backbone)
    more = {"stop_token_ids": None, "max_new_tokens": 4, "return_logprobs": 3}
    arrays = bare.generate(inputs, strip_prompt=False, **more)
    for row, answer in enumerate(told):
        start = int(inputs["padding_mask"][row].sum())
        at = slice(start, start + 4)
        assert arrays["token_ids"][row, at].tolist() == answer.token_ids
        kept = [known.logprob for known in answer.logprobs]
        np.testing.assert_allclose(arrays["logprobs"][row, at], kept, atol=1e-5)
        assert arrays["top_tokens"][row, at].tolist() == [
            [token for token, _ in known.top] for known in answer.logprobs
        ]
        assert not arrays["logprobs"][row, :start].any()


def test_a_stream_and_a_chat_obey_the_same(model: FastVLMCausalLM) -> None:
    options: dict[str, Any] = {"repetition_penalty": 1.6, "no_repeat_ngram_size": 2}
    expected = model.generate(one(0), max_new_tokens=NEW, return_logprobs=1, **options)
    stream = model.stream(one(0), max_new_tokens=NEW, return_logprobs=1, **options)
    assert "".join(stream) == expected.text and stream.logprobs == expected.logprobs
    chat = Chat(model, max_new_tokens=NEW, **options)
    assert "".join(chat.ask(QUESTIONS[0], IMAGES[0])) == expected.text
    cut = Chat(model, max_new_tokens=NEW, stop=expected.text[4:6], **options)
    assert "".join(cut.ask(QUESTIONS[0], IMAGES[0])) == expected.text[:4]
    assert cut.messages[1]["content"] == expected.text[:4]


def test_what_does_not_go_together(model: FastVLMCausalLM) -> None:
    with pytest.raises(TypeError, match="unknown keyword.*'penalty'.*repetition_penalty"):
        model.generate("Why?", penalty=2)
    with pytest.raises(SamplingError, match="settings .* or a sampler, not both"):
        model.generate("Why?", settings=RowSettings(), sampler="greedy")
    with pytest.raises(SamplingError, match="one for each of 3 prompts"):
        model.generate(BATCH, settings=[RowSettings()] * 2)
    with pytest.raises(SamplingError, match="BeamSampler goes with none of"):
        model.generate("Why?", sampler="beam", repetition_penalty=2.0)
    with pytest.raises(SamplingError, match="beam search takes no stop texts"):
        model.generate("Why?", sampler="beam", stop="a")
    with pytest.raises(SamplingError, match="^repetition_penalty must be"):
        Chat(model, repetition_penalty=-1.0)
    bare = FastVLMCausalLM(model.backbone)
    inputs = model.preprocessor.generate_preprocess(one(0))
    with pytest.raises(SamplingError, match="stop texts need a preprocessor"):
        bare.generate(inputs, stop="a", stop_token_ids=None)
