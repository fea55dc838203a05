"""Certainties: from the tokens, or from an encoder that knows better."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dl_techniques.errors import SamplingError
from dl_techniques.models.vlm.fast_vlm import Chat, FastVLMCausalLM
from dl_techniques.models.vlm.fast_vlm.answer.rows.certainty import certainty_of
from dl_techniques.models.vlm.fast_vlm.answer.rows.row_choice import TokenLogprob
from tests.models.vlm.fast_vlm.small_model import SIZE, make_model, pictures

IMAGES = pictures(2, 3)
ONE: dict[str, Any] = {"prompts": "Why?", "images": IMAGES[0]}
TWO: dict[str, Any] = {"prompts": ["Why?", "and <image> <image>?"], "images": [[], IMAGES]}


@pytest.fixture
def model() -> FastVLMCausalLM:
    return make_model()


@pytest.mark.once
def test_the_product_of_the_tokens_probabilities() -> None:
    tokens = [TokenLogprob(1, np.log(0.5)), TokenLogprob(2, np.log(0.5))]
    assert certainty_of(tokens) == pytest.approx(0.25)
    assert certainty_of(tokens, temperature=2.0) == pytest.approx(0.5)


def test_generate_stream_and_chat_tell_it(model: FastVLMCausalLM) -> None:
    answer = model.generate(ONE, max_new_tokens=4, return_certainty=True, return_logprobs=1)
    logprobs = [known.logprob for known in answer.logprobs]
    assert answer.certainty == pytest.approx(np.exp(sum(logprobs)))
    model.certainty_temperature = 2.0
    told = model.generate(ONE, max_new_tokens=4, return_certainty=True)
    assert told.text == answer.text and told.certainty == pytest.approx(answer.certainty**0.5)
    stream = model.stream(ONE, max_new_tokens=4, return_certainty=True)
    assert stream.certainty is None  # nothing is written yet
    assert "".join(stream) == answer.text
    assert stream.certainty == pytest.approx(told.certainty)
    chat = Chat(model, max_new_tokens=4, return_certainty=True)
    turn = chat.ask("Why?", IMAGES[0])
    assert "".join(turn) == answer.text and turn.certainty == pytest.approx(told.certainty)
    silent = model.stream(ONE, max_new_tokens=4)
    assert "".join(silent) == answer.text and silent.certainty is None
    inputs = model.preprocessor.generate_preprocess(ONE)
    bare = FastVLMCausalLM(model.backbone)
    arrays = bare.generate(inputs, max_new_tokens=4, return_certainty=True, stop_token_ids=())
    assert arrays["certainty"].shape == (1,) and "logprobs" not in arrays


def test_an_encoder_that_knows_better_is_asked_first(model: FastVLMCausalLM) -> None:
    asked = []

    def answer_certainty(question: str, answer: str, seen: np.ndarray) -> float | None:
        asked.append((question, answer, seen))
        return 0.75 if len(seen) else None

    plain = model.generate(TWO, max_new_tokens=4, return_certainty=True)
    object.__setattr__(model.backbone.vision_encoder, "answer_certainty", answer_certainty)
    told = model.generate(TWO, max_new_tokens=4, return_certainty=True)
    assert [answer.certainty for answer in told] == [plain[0].certainty, 0.75]
    assert [question for question, _, _ in asked] == ["Why?", "and  ?"]  # without the marks
    assert [answer for _, answer, _ in asked] == [answer.text for answer in plain]
    assert [seen.shape for _, _, seen in asked] == [(n, SIZE, SIZE, 3) for n in (0, 2)]
    np.testing.assert_array_equal(asked[1][2], model.preprocessor.image_converter(IMAGES))
    chat = Chat(model, max_new_tokens=4, return_certainty=True)
    "".join(chat.ask("Why?", IMAGES[0]))
    later = chat.ask("and this?", IMAGES[1])
    "".join(later)
    assert later.certainty == 0.75 and len(asked[-1][2]) == 2


@pytest.mark.once
def test_the_temperature_is_saved(model: FastVLMCausalLM) -> None:
    model.certainty_temperature = 1.5
    assert model.get_config()["certainty_temperature"] == 1.5
    for wrong in (0.0, -1, float("inf"), "warm"):
        with pytest.raises(SamplingError, match="certainty_temperature must be"):
            FastVLMCausalLM(model.backbone, certainty_temperature=wrong)
