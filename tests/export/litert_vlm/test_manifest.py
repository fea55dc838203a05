"""The pieces of the manifest, put together, are the prompt that the preprocessor makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dl_techniques.export.litert_vlm.manifest import make_manifest, picture_rule, prompt_layout
from dl_techniques.models.vlm.fast_vlm import FastVLMImageConverter
from tests.export.litert_vlm.small_export import LENGTHS, MEAN, QUESTION, ROWS, make_model
from tests.models.vlm.fast_vlm.small_model import pictures


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


def tokens_of(preprocessor: Any, layout: list[dict[str, Any]], question: str) -> list[int]:
    """The token ids that a host reads out of a layout, with placeholders for pictures."""
    ids: list[int] = []
    for piece in layout:
        if "picture" in piece:
            ids += [preprocessor.tokenizer.image_token_id] * preprocessor.num_image_tokens
        elif "ids" in piece:
            ids += piece["ids"]
        else:
            text = piece["before"] + question + piece["after"]
            ids += preprocessor.tokenizer.tokenize_plain(text)
    return ids


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("template", ["apple", "transformers"])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_layout_is_the_prompt(model: Any, number: int, template: str, system: str | None) -> None:
    preprocessor = model.preprocessor
    config = {**preprocessor.get_config(), "template": template, "system_prompt": system}
    parts = {"tokenizer": preprocessor.tokenizer, "image_converter": preprocessor.image_converter}
    other = type(preprocessor)(**{**config, **parts})
    batch = other.generate_preprocess({"prompts": [QUESTION], "images": [pictures(number)]})
    expected = batch["token_ids"][0][batch["padding_mask"][0]]
    layout = prompt_layout(other, number)
    np.testing.assert_array_equal(tokens_of(other, layout, QUESTION), expected)
    assert [p["picture"] for p in layout if "picture" in p] == list(range(number))


def test_manifest_describes_the_model(model: Any) -> None:
    manifest = make_manifest(
        model,
        size=32,
        picture_rows=ROWS,
        prefill_lengths=LENGTHS,
        cache_length=96,
        shared_embedder=True,
    )
    assert manifest["cache_shape"] == [1, 2, 96, 8]
    assert manifest["files"]["embedder"] == manifest["files"]["language"]
    assert manifest["stop_ids"] == sorted(model.stop_ids())
    assert "<image>" in manifest["special_tokens"]
    assert len(manifest["prompts"]) == 5


def test_margins_have_the_converters_colour() -> None:
    converter = FastVLMImageConverter(8, mean=MEAN)
    rule = picture_rule(converter, 8)
    picture = converter.to_uint8(np.zeros((4, 8, 3), "uint8"))
    assert rule["fill"] == picture[0, 0].tolist()
