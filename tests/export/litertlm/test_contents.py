"""The facts and rules of a model's bundle."""

from __future__ import annotations

from dl_techniques.export.litertlm.contents import facts_of, host_rule, rows_of
from dl_techniques.export.litertlm.contract import Facts
from dl_techniques.models.vlm.fast_vlm import FastVLMImageConverter
from tests.models.vlm.fast_vlm.small_model import SIZE, TOKENS, make_model


def test_facts_are_the_models() -> None:
    model = make_model()
    tokenizer = model.preprocessor.tokenizer
    stops = (tokenizer.end_token_id, tokenizer.end_token2_id)
    assert facts_of(model, 192, rows_of(model)) == Facts(
        SIZE, SIZE, TOKENS, tokenizer.vocabulary_size(), 192, stops
    )


def test_the_border_has_the_colour_of_the_converter() -> None:
    preprocessor = make_model().preprocessor
    preprocessor.image_converter = FastVLMImageConverter(
        SIZE, mean=(0.5, 0.25, 1.0), interpolation="lanczos"
    )
    rule = host_rule(preprocessor)
    assert rule.fill == (127, 63, 255)
    assert (rule.mode, rule.interpolation, rule.layout) == ("pad", "lanczos", "apple")
    assert "<|im_end|>" in rule.special and "<image>" in rule.special
