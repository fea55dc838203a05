"""A model that keeps some of a picture's rows: phases, generation, chat, training, saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.errors import PromptError, VariantError
from dl_techniques.layers.token_selector import TokenSelector
from dl_techniques.models.vlm.fast_vlm import Chat, FastVLMBackbone, FastVLMCausalLM
from tests.helpers import TOLERANCE, numbers, relative_difference
from tests.models.vlm.fast_vlm.small_model import (
    TOKENS,
    make_decoder,
    make_encoder,
    make_model,
    pictures,
)

KEPT, NEW = 2, 5
(PICTURE,) = pictures(1, 3)
QUESTION = {"prompts": "what is this?", "images": PICTURE}


@pytest.fixture(scope="module")
def model() -> FastVLMCausalLM:
    model = make_model()
    model.select_tokens(KEPT)
    return model


def logits(model: FastVLMCausalLM) -> np.ndarray:
    """Of the first token after the question."""
    inputs = model.preprocessor.generate_preprocess(QUESTION)
    rows = model.encode_images(inputs["images"])
    return numbers(model.prefill(inputs, rows, NEW)[0])


def test_rows_and_placeholders_follow(model: FastVLMCausalLM) -> None:
    inputs = model.preprocessor.generate_preprocess(QUESTION)
    assert inputs["vision_indices"].shape == (1, KEPT) and model.backbone.num_image_tokens == KEPT
    rows = model.encode_images(inputs["images"])
    whole = make_model().encode_images(inputs["images"])
    assert whole.shape[1] == TOKENS
    assert relative_difference(rows, TokenSelector(KEPT)(whole)) < TOLERANCE


def test_the_graph_agrees_with_the_phases(model: FastVLMCausalLM) -> None:
    inputs = model.preprocessor.generate_preprocess(QUESTION)
    length = int(inputs["padding_mask"].sum())
    arrays = {k: v.astype("int32") if v.dtype == bool else v for k, v in inputs.items()}
    whole = numbers(model(arrays, training=False))[:, length - 1]
    assert relative_difference(logits(model), whole) < 1e-4


def test_switching_it_off_is_bit_for_bit_as_never_switched_on() -> None:
    model = make_model()
    before, answer = logits(model), model.generate(QUESTION, max_new_tokens=NEW)
    model.select_tokens(1)
    assert np.abs(logits(model) - before).max() > 1e-3
    model.select_tokens(None)
    np.testing.assert_array_equal(logits(model), before)
    assert model.generate(QUESTION, max_new_tokens=NEW) == answer
    model.select_tokens(TOKENS)
    np.testing.assert_array_equal(logits(model), before)


def test_a_saved_one_keeps_as_many(model: FastVLMCausalLM, tmp_path: Path) -> None:
    answer = model.generate(QUESTION, max_new_tokens=NEW)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    preset = FastVLMCausalLM.from_preset(tmp_path / "preset")
    for loaded in (again, preset):
        assert loaded.backbone.image_tokens == loaded.preprocessor.num_image_tokens == KEPT
        assert loaded.generate(QUESTION, max_new_tokens=NEW) == answer
    fewer = FastVLMCausalLM.from_preset(tmp_path / "preset", num_image_tokens=1)
    assert fewer.encode_images(np.zeros((1, 1, 32, 32, 3), "float32")).shape[1] == 1


def test_chat_goes_on_and_refuses_a_change_in_between(model: FastVLMCausalLM) -> None:
    chat = Chat(model, max_new_tokens=NEW)
    first = "".join(chat.ask("what is this?", PICTURE))
    assert first == model.generate(QUESTION, max_new_tokens=NEW)
    model.select_tokens(KEPT - 1)
    with pytest.raises(PromptError, match=r"2 rows each, the model keeps 1 now; call reset\(\)"):
        chat.ask("and why?")
    chat.reset()
    "".join(chat.ask("what is this?", PICTURE))
    model.select_tokens(KEPT)


def test_a_trained_choice_learns_with_the_model() -> None:
    model = make_model()
    old = model.backbone
    backbone = FastVLMBackbone(
        old.vision_encoder, old.text_backbone, 20, image_tokens=KEPT, trained_selection=True
    )
    model.preprocessor.num_image_tokens = KEPT
    trained = FastVLMCausalLM(backbone, model.preprocessor)
    trained.compile("sgd")
    data: dict[str, Any] = {**QUESTION, "responses": "a cat"}
    trained.fit({k: [v] for k, v in data.items()}, epochs=1, verbose=0)
    kernel = backbone.image_embedding.selector.score.kernel
    assert np.abs(numbers(kernel)).max() > 0
    again = FastVLMBackbone.from_config(backbone.get_config())
    assert [tuple(w.shape) for w in again.weights] == [tuple(w.shape) for w in backbone.weights]


@pytest.mark.parametrize("number", [0, TOKENS + 1])
def test_impossible_numbers_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"image_tokens={number}: expected 1 to 4"):
        FastVLMBackbone(make_encoder(), make_decoder(), image_tokens=number)


def test_transformers_cannot_hold_it(model: FastVLMCausalLM, tmp_path: Path) -> None:
    with pytest.raises(VariantError, match=r"keeps 2 rows.*select_tokens\(None\)"):
        model.export_to_transformers(tmp_path / "out")
