"""The written `tokenizer.json` gives the ids that the model's own tokenizer gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers

from dl_techniques.errors import ExportError
from dl_techniques.export.litert_vlm.tokenizer_file import special_tokens, write_tokenizer_json
from dl_techniques.models.vlm.fast_vlm import FastVLMTokenizer
from dl_techniques.models.vlm.fast_vlm.prompt.json_tokenizer import FastVLMJsonTokenizer

TEXTS = ["what is this? a red cube", "der Würfel ist rot", "12 + 30 = 42"] * 4


@pytest.fixture(scope="module")
def tokenizer() -> FastVLMTokenizer:
    return FastVLMTokenizer.from_texts(TEXTS, vocabulary_size=320)


@pytest.mark.parametrize(
    "text",
    [
        "what is this?",
        "  a  red\n\ncube\t ",
        "Würfel, e\u0301 and \u00e9, 漢字",
        "\U0001f600\u200d\U0001f600 42",
        "<|im_start|>user\nhi<|im_end|>\n<image><|endoftext|>",
        "",
    ],
)
def test_ids_are_equal(tokenizer: FastVLMTokenizer, tmp_path: Path, text: str) -> None:
    path = write_tokenizer_json(tokenizer, tmp_path / "tokenizer.json")
    engine = tokenizers.Tokenizer.from_file(str(path))
    ids = engine.encode(text, add_special_tokens=False).ids
    assert ids == [int(i) for i in tokenizer.tokenize(text)]
    decoded = engine.decode(ids, skip_special_tokens=True)
    assert decoded == tokenizer.detokenize(ids, skip_special_tokens=True)


def test_tokenizer_that_is_a_file_itself(tokenizer: FastVLMTokenizer, tmp_path: Path) -> None:
    same = FastVLMJsonTokenizer(tokenizer.to_hugging_face(), end_token="<|im_end|>")
    path = write_tokenizer_json(same, tmp_path / "tokenizer.json")
    engine = tokenizers.Tokenizer.from_file(str(path))
    assert engine.get_vocab_size() == same.vocabulary_size()
    assert "<image>" in special_tokens(same)


def test_other_ids_are_refused(tmp_path: Path) -> None:
    class Shifted(FastVLMTokenizer):
        def to_hugging_face(self) -> str:
            data = json.loads(super().to_hugging_face())
            words = data["model"]["vocab"]
            words["a"], words["b"] = words["b"], words["a"]
            return json.dumps(data)

    path = tmp_path / "tokenizer.json"
    path.write_text("old")
    with pytest.raises(ExportError, match="other ids"):
        write_tokenizer_json(Shifted.from_texts(TEXTS, vocabulary_size=320), path)
    assert path.read_text() == "old"


def test_another_splitting_is_refused(tokenizer: FastVLMTokenizer, tmp_path: Path) -> None:
    class Unsplit(FastVLMTokenizer):
        def to_hugging_face(self) -> str:
            data = json.loads(super().to_hugging_face())
            return json.dumps({**data, "normalizer": {"type": "Lowercase"}})

    with pytest.raises(ExportError, match="cannot hold"):
        write_tokenizer_json(Unsplit.from_texts(TEXTS, vocabulary_size=320), tmp_path / "t.json")
    assert not list(tmp_path.iterdir())
