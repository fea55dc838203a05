"""What passes and what fails when the engine's answers are held against Keras'."""

from __future__ import annotations

import numpy as np

from dl_techniques.export.litertlm.comparing import compare_answers, keras_answers, prompt_ids
from dl_techniques.hosts.litertlm_apart import Answer, Turn
from tests.models.vlm.fast_vlm.small_model import TOKENS, make_model, pictures

CAT, DOG = np.zeros((2, 2, 3), "uint8"), np.ones((2, 2, 3), "uint8")
TURNS = [Turn(question, (picture,)) for picture in (CAT, DOG) for question in ("what?", "red?")]


def answers(*texts: str) -> list[Answer]:
    return [Answer([1, -1, 2], text) for text in texts]


KERAS = answers("cat", "no", "dog", "no")


def passed(got: list[Answer], precision: str = "float32") -> dict[str, bool]:
    return {c.what: c.passed for c in compare_answers(TURNS, KERAS, got, precision)}


def test_equal_answers_pass() -> None:
    checks = compare_answers(TURNS, KERAS, KERAS, "float32")
    assert [c.agreement for c in checks] == [1.0, 1.0, 1.0]
    assert [c.samples for c in checks] == [4, 4, 1]
    assert all(c.passed for c in checks)


def test_one_other_answer_fails_in_float32_only() -> None:
    got = answers("cat", "no", "dog", "yes")
    assert list(passed(got).values()) == [True, False, True]
    assert all(passed(got, "int8").values())


def test_an_engine_that_sees_nothing_fails_in_every_precision() -> None:
    got = answers("cat", "no", "cat", "no")
    assert list(passed(got, "int8").values()) == [True, True, False]


def test_another_prompt_fails_even_if_the_texts_are_equal() -> None:
    got = [Answer([1, -1, 3], answer.text) for answer in KERAS]
    assert list(passed(got).values()) == [False, True, True]


def test_nothing_is_said_of_pictures_that_do_not_matter() -> None:
    same = answers("cat", "no", "cat", "no")
    assert len(compare_answers(TURNS, same, same, "float32")) == 2


def test_answers_of_keras() -> None:
    model, picture = make_model(), pictures(1)[0]
    record = {"prompts": "why?", "images": picture}
    (answer,) = keras_answers(model, [Turn("why?", (picture,))], 3)
    assert answer.text == model.generate(record, max_new_tokens=3)
    assert answer.prompt == prompt_ids(model, {**record, "images": [picture]})
    assert answer.prompt.count(-1) == TOKENS
    text = [i for i in answer.prompt if i >= 0]
    assert model.preprocessor.tokenizer.detokenize(text).endswith(
        "why?<|im_end|>\n<|im_start|>assistant\n"
    )
