"""generate() and stream(): a row's answer depends on nothing but the row."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import keras_hub
import numpy as np
import pytest

from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLM
from tests.models.vlm.fast_vlm.small_model import CONTEXT, make_model, pictures

NEW = 8
QUESTIONS = ["Why?", "What is a red cube here?", "Why is the cat on the mat, and not the ball?"]
IMAGES = [pictures(1, 1), [], pictures(2, 2)]
BATCH = {"prompts": QUESTIONS, "images": IMAGES}
SAMPLERS = {
    "greedy": "greedy",
    "top_k": keras_hub.samplers.TopKSampler(k=5, seed=3),
    "top_p": keras_hub.samplers.TopPSampler(p=0.9, seed=3),
    "random": keras_hub.samplers.RandomSampler(seed=5, temperature=0.7),
    "beam": keras_hub.samplers.BeamSampler(num_beams=3),
}


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


def arrays(model: Any, questions: Any = QUESTIONS, images: Any = IMAGES) -> Any:
    return model.preprocessor.generate_preprocess({"prompts": questions, "images": images})


def tokens(model: Any, inputs: Any, sampler: Any, **more: Any) -> Any:
    """New tokens of every row, by the array interface of a model without preprocessor."""
    more = {"max_new_tokens": NEW, "stop_token_ids": (40, 41, 42), **more}
    out = bare_of(model).generate(inputs, sampler=sampler, **more)
    return [r[m].tolist() for r, m in zip(out["token_ids"], out["padding_mask"], strict=True)]


@functools.cache
def bare_of(model: Any) -> Any:
    """The same weights, arrays in and arrays out."""
    return FastVLMCausalLM(model.backbone)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_batch_equals_its_prompts_one_by_one(model: Any, name: Any) -> None:
    """Unequal lengths, 1, 0 and 2 pictures; stop tokens end rows at different times."""
    together = tokens(model, arrays(model), SAMPLERS[name])
    alone = [
        tokens(model, arrays(model, [question], [images]), SAMPLERS[name])[0]
        for question, images in zip(QUESTIONS, IMAGES, strict=True)
    ]
    assert together == alone
    assert len({tuple(row) for row in together}) == 3
    assert all(0 < len(row) <= NEW for row in together)


def test_greedy_equals_the_plain_forward_pass(model: Any) -> None:
    """64 cached steps, beyond the point where a step is recorded, against one pass without."""
    inputs = arrays(model, QUESTIONS[:1], IMAGES[:1])
    got = tokens(model, inputs, "greedy", stop_token_ids=None, max_new_tokens=64)[0]
    whole = {k: np.array(v) for k, v in inputs.items()}
    start = int(inputs["padding_mask"].sum())
    whole["token_ids"][0, start : start + 64] = got
    whole["padding_mask"] = (np.arange(CONTEXT) < start + 64)[None].astype("int32")
    logits = model.predict(whole, verbose=0)[0]
    assert np.argmax(logits[start - 1 : start + 63], axis=-1).tolist() == got
    assert len(set(got)) > 5


@pytest.mark.full
def test_uncompiled_equals_compiled(model: Any) -> None:
    inputs = arrays(model, QUESTIONS[:1], IMAGES[:1])
    eager = FastVLMCausalLM(model.backbone)
    eager.compile(run_eagerly=True)
    out = eager.generate(inputs, stop_token_ids=None, max_new_tokens=2)
    expected = tokens(model, inputs, "greedy", stop_token_ids=None, max_new_tokens=2)
    assert out["token_ids"][:, :2].tolist() == expected


def test_beam_search_finds_the_best_sequence(model: Any) -> None:
    """One beam is greedy; as many beams as tokens find the best pair of tokens."""
    inputs = arrays(model, QUESTIONS[:1], IMAGES[:1])
    narrow = keras_hub.samplers.BeamSampler(num_beams=1)
    greedy = tokens(model, inputs, "greedy", stop_token_ids=None)
    assert tokens(model, inputs, narrow, stop_token_ids=None) == greedy
    size = model.backbone.text_backbone.vocabulary_size
    wide = keras_hub.samplers.BeamSampler(num_beams=size)
    best = tokens(model, inputs, wide, stop_token_ids=None, max_new_tokens=2)[0]
    rows = model.encode_images(inputs["images"])
    log_softmax = lambda x: x - np.log(np.exp(x - x.max()).sum()) - x.max()  # noqa: E731
    logits, state = model.prefill(inputs, rows, 2)
    first = log_softmax(np.array(logits)[0])
    state = model.phases.repeat_rows(state, size)
    logits, _ = model.decode_step(np.arange(size, dtype="int32"), state)
    totals = first[:, None] + np.array([log_softmax(row) for row in np.array(logits)])
    assert best == [int(i) for i in np.unravel_index(np.argmax(totals), totals.shape)]


def test_stop_tokens_end_a_row(model: Any) -> None:
    inputs = arrays(model)
    free = tokens(model, inputs, "greedy", stop_token_ids=None)
    stop = free[2][3]
    stopped = tokens(model, inputs, "greedy", stop_token_ids=(stop,))
    for long, short in zip(free, stopped, strict=True):
        end = long.index(stop) + 1 if stop in long else NEW
        assert short == long[:end]


def test_automatic_stop_tokens_are_the_tokenizers(model: Any) -> None:
    tokenizer = model.preprocessor.tokenizer
    assert model.stop_ids("auto") == (tokenizer.end_token_id, tokenizer.end_token2_id)
    assert model.stop_ids(None) == ()


def test_seeds(model: Any) -> None:
    """Same seed, same answer; equal rows of a batch differ; a seed per row is taken as it is."""
    ask = {"prompts": ["Why?"] * 2, "images": [IMAGES[0]] * 2}
    sampler = keras_hub.samplers.RandomSampler(seed=9)
    inputs = model.preprocessor.generate_preprocess(ask)
    first, second = tokens(model, inputs, sampler), tokens(model, inputs, sampler)
    assert first == second and first[0] != first[1]
    assert tokens(model, inputs, sampler, seed=10) != first
    own = tokens(model, inputs, sampler, seed=[4, 4])
    assert own[0] == own[1]
    unseeded = keras_hub.samplers.RandomSampler()
    assert tokens(model, inputs, unseeded) != tokens(model, inputs, unseeded)


def test_a_sampler_of_ones_own(model: Any) -> None:
    class Second(keras_hub.samplers.Sampler):
        def get_next_token(self, probabilities: Any) -> Any:
            from keras import ops

            return ops.top_k(probabilities, k=2)[1][:, 1]

    inputs = arrays(model, QUESTIONS[:1], IMAGES[:1])
    got = tokens(model, inputs, Second(), max_new_tokens=1)
    logits, _ = model.prefill(inputs, model.encode_images(inputs["images"]), 1)
    assert got == [[int(np.argsort(np.array(logits)[0])[-2])]]


def test_unsupported_samplers_are_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="ContrastiveSampler"):
        model.generate("Why?", sampler="contrastive")
    with pytest.raises(ValueError, match="beam"):
        model.stream("Why?", sampler="beam")


def test_text_in_text_out(model: Any) -> None:
    """A single prompt gives a string, a list a list; the prompt is given back on request."""
    single = model.generate({"prompts": "Why?", "images": IMAGES[0]}, max_new_tokens=NEW)
    batch = model.generate({"prompts": ["Why?"], "images": [IMAGES[0]]}, max_new_tokens=NEW)
    assert isinstance(single, str) and batch == [single]
    ask = {"prompts": "Why?", "images": IMAGES[0]}
    full = model.generate(ask, max_new_tokens=NEW, strip_prompt=False)
    assert full.endswith(single) and "Why?" in full and "<image>" not in full
    talk = {"messages": [{"role": "user", "content": "Why?"}], "images": IMAGES[0]}
    assert model.generate(talk, max_new_tokens=NEW) == single


def test_a_dataset_of_batches(model: Any) -> None:
    """As tf.data gives it: an iterator over NumPy batches, answered one after the other."""

    class Dataset:
        def as_numpy_iterator(self) -> Iterator[Any]:
            yield {"prompts": np.array([b"Why?", b"What?"])}
            yield {"prompts": np.array([b"Why not?"])}

    told = model.generate(Dataset(), max_new_tokens=2)
    assert told == model.generate(["Why?", "What?", "Why not?"], max_new_tokens=2)


def test_stop_tokens_are_ids(model: Any) -> None:
    """Of a text the tokenizer gives them; nothing is converted in silence."""
    assert model.stop_ids(np.array([3, 4])) == (3, 4) and model.stop_ids([]) == ()
    for wrong in (["."], ".", "autos", [1.5], [-3], 5, [None]):
        with pytest.raises(PromptError, match="^stop_token_ids must be .*tokenize_plain"):
            model.generate("Why?", stop_token_ids=wrong)


def test_lengths(model: Any) -> None:
    """max_length counts the prompt; max_new_tokens does not; neither passes the context."""
    inputs = arrays(model, QUESTIONS[:1], IMAGES[:1])
    prompt = int(inputs["padding_mask"].sum())
    free = tokens(model, inputs, "greedy", stop_token_ids=None, max_new_tokens=None)[0]
    assert len(free) == CONTEXT - prompt
    ask = {"prompts": QUESTIONS[0], "images": IMAGES[0]}
    short = model.stream(ask, max_length=prompt + 5, stop_token_ids=None)
    "".join(short)
    assert len(short.token_ids) == 5


def test_stream_equals_generate_and_cuts_between_characters(model: Any) -> None:
    ask = {"prompts": "Why?", "images": IMAGES[0]}
    stream = model.stream(ask, max_new_tokens=30, stop_token_ids=None)
    pieces = list(stream)
    text = model.generate(ask, max_new_tokens=30, stop_token_ids=None)
    assert "".join(pieces) == text == stream.text and len(pieces) > 1
    assert len(stream.token_ids) == 30 and stream.finished


def test_a_stream_starts_the_model_only_when_read(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(type(model.phases), "prefill", lambda *a: calls.append(a) or 1 / 0)
    stream = model.stream("Why?")
    assert not calls
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_phases_by_hand_equal_generate(model: Any) -> None:
    """What serving and export do."""
    inputs = arrays(model)
    expected = tokens(model, inputs, "greedy", stop_token_ids=None)
    logits, state = model.prefill(inputs, model.encode_images(inputs["images"]), NEW)
    rows = [np.argmax(np.array(logits), axis=-1)]
    while len(rows) < NEW:
        logits, state = model.decode_step(rows[-1].astype("int32"), state)
        rows.append(np.argmax(np.array(logits), axis=-1))
    assert np.stack(rows, axis=1).tolist() == expected


def test_bad_prompts(model: Any) -> None:
    long = "ball " * CONTEXT
    with pytest.raises(PromptError, match="no room"):
        model.generate(long)
    with pytest.raises(PromptError):
        model.generate("   ")
    with pytest.raises(PromptError, match="picture"):
        model.generate({"prompts": "<image> and <image>?", "images": IMAGES[0]})
    with pytest.raises(PromptError, match="one prompt, got 3"):
        model.stream(BATCH)
    with pytest.raises(PromptError, match="encode_images"):
        model.prefill(arrays(model))
    with pytest.raises(PromptError, match="at least 1"):
        model.generate("Why?", max_new_tokens=0)


def test_without_a_preprocessor_stop_tokens_must_be_given(model: Any) -> None:
    inputs = arrays(model, QUESTIONS[:1], IMAGES[:1])
    with pytest.raises(ValueError, match="auto"):
        tokens(model, inputs, "greedy", stop_token_ids="auto")
