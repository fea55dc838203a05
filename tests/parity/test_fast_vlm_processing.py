"""Pictures and prompts against transformers' processors: pixel for pixel, id for id."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLMPreprocessor, FastVLMImageConverter
from tests.checkpoints.fast_vlm import folders
from tests.parity import fast_vlm_models as theirs

from transformers.models.clip.image_processing_pil_clip import (  # isort: skip
    CLIPImageProcessorPil,
)

SIZE, PATCH = 32, 8
SHAPES = [(40, 24), (24, 40), (33, 33), (17, 90), (64, 64), (31, 32)]
QUESTION = "what is this? a red cube and a blue ball"


def picture(shape: Any, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def preprocessor() -> Any:
    return FastVLMCausalLMPreprocessor(
        folders.make_tokenizer(),
        FastVLMImageConverter(SIZE, mode="crop"),
        sequence_length=256,
        num_image_tokens=(SIZE // PATCH) ** 2,
        template="transformers",
    )


@pytest.fixture(scope="module")
def processor(preprocessor: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The processor that transformers makes of what we write."""
    folder = tmp_path_factory.mktemp("processor") / "out"
    preprocessor.export_to_transformers(folder)
    return theirs.t.LlavaProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def clip() -> Any:
    """CLIP's picture processor on Pillow, which the published code resizes with."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
    )


def square_of(array: Any) -> Any:
    """Apple's `expand2square`: a black square, the picture in its middle."""
    height, width = array.shape[:2]
    side = max(height, width)
    square = Image.new("RGB", (side, side), (0, 0, 0))
    square.paste(Image.fromarray(array), ((side - width) // 2, (side - height) // 2))
    return square


def pixels(clip: Any, image: Any) -> Any:
    found = clip(image, return_tensors="np")["pixel_values"]
    return np.asarray(found)[0].transpose(1, 2, 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_padded_pictures(clip: Any, shape: Any) -> None:
    ours = FastVLMImageConverter(SIZE)(picture(shape))
    np.testing.assert_array_equal(ours, pixels(clip, square_of(picture(shape))))


@pytest.mark.parametrize("shape", SHAPES)
def test_cropped_pictures(clip: Any, shape: Any) -> None:
    ours = FastVLMImageConverter(SIZE, mode="crop")(picture(shape))
    np.testing.assert_array_equal(ours, pixels(clip, Image.fromarray(picture(shape))))


@pytest.mark.parametrize("shape", SHAPES)
def test_torchvision_s_resizing_rounds_otherwise(processor: Any, shape: Any) -> None:
    """transformers' newer processor: the same pictures within one of 255 steps."""
    ours = FastVLMImageConverter(SIZE, mode="crop")(picture(shape))
    found = pixels(processor.image_processor, Image.fromarray(picture(shape)))
    assert np.abs(ours - found).max() < 1.01 / 255
    assert (ours != found).mean() < 0.02


def turn(role: Any, text: Any, images: int = 0) -> Any:
    """A message as chat templates of transformers take it."""
    parts = [{"type": "image"}] * images + [{"type": "text", "text": text}]
    return {"role": role, "content": parts}


CONVERSATIONS = {
    "one picture": ([("user", QUESTION, 1)], 1),
    "two pictures": ([("user", QUESTION, 2)], 2),
    "no picture": ([("user", QUESTION, 0)], 0),
    "own system prompt": ([("system", "be brief", 0), ("user", QUESTION, 1)], 1),
    "an answer before": (
        [("user", "what is this?", 1), ("assistant", "a red cube", 0), ("user", "why?", 0)],
        1,
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_prompts(preprocessor: Any, processor: Any, name: Any) -> None:
    turns, number = CONVERSATIONS[name]
    images = [picture((40, 24), seed) for seed in range(number)]
    text = processor.apply_chat_template([turn(*t) for t in turns], add_generation_prompt=True)
    given = [Image.fromarray(image) for image in images] or None
    expected = processor(images=given, text=text, return_tensors="np")
    messages = [{"role": role, "content": content} for role, content, _ in turns]
    ours = preprocessor.generate_preprocess({"messages": messages, "images": images})
    row = ours["token_ids"][0][ours["padding_mask"][0]]
    assert row.tolist() == np.asarray(expected["input_ids"])[0].tolist()
    for i in range(number):
        theirs_ = np.asarray(expected["pixel_values"])[i].transpose(1, 2, 0)
        np.testing.assert_allclose(ours["images"][0, i], theirs_, atol=1.01 / 255)


def test_the_tokenizer_s_ids(preprocessor: Any, processor: Any) -> None:
    tokenizer = preprocessor.tokenizer
    for text in (QUESTION, "  Tab\tand\n\nlines 123 été", "<|im_start|>user\n", "猫 🐈"):
        assert processor.tokenizer(text)["input_ids"] == list(tokenizer.tokenize(text))
    assert processor.image_token_id == tokenizer.image_token_id
    assert processor.tokenizer.eos_token_id == tokenizer.end_token_id


def test_apple_s_prompt_is_another_one(preprocessor: Any) -> None:
    """The two differ where the table says, so the option must do something."""
    messages = [
        {"role": "user", "content": "what?"},
        {"role": "assistant", "content": "cube"},
        {"role": "user", "content": "why?"},
    ]
    apple = FastVLMCausalLMPreprocessor(
        preprocessor.tokenizer, preprocessor.image_converter, 256, (SIZE // PATCH) ** 2
    )
    two = [picture((40, 24))] * 2
    rows = []
    for each in (apple, preprocessor):
        inputs = each.generate_preprocess({"messages": messages, "images": two})
        text = each.tokenizer.detokenize(inputs["token_ids"][0][inputs["padding_mask"][0]])
        rows.append(text.replace("<image>" * 16, "<image>"))
    assert "<image>\n<image>\nwhat?" in rows[0] and "assistant\ncube" in rows[0]
    assert "<image><image>\nwhat?" in rows[1] and "assistant\n\ncube" in rows[1]
