"""Metadata and the tokenizer's file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers

from dl_techniques.errors import ExportError
from dl_techniques.export.litertlm.assembling import RESERVED, fill_vocabulary, llm_metadata
from dl_techniques.export.litertlm.contract import Facts
from dl_techniques.models.vlm.fast_vlm import FastVLMTokenizer
from tests.models.vlm.fast_vlm.small_model import TEXTS


@pytest.fixture
def tokenizer() -> FastVLMTokenizer:
    return FastVLMTokenizer.from_texts(TEXTS, vocabulary_size=300)


def write(tokenizer: FastVLMTokenizer, folder: Path) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(tokenizer.to_hugging_face(), encoding="utf-8")
    return path


def test_metadata() -> None:
    pytest.importorskip("litert_lm_builder")
    metadata = llm_metadata(Facts(32, 48, 4, 300, 192, (298, 296)), "text")
    assert [list(stop.token_ids.ids) for stop in metadata.stop_tokens] == [[298], [296]]
    assert metadata.max_num_tokens == 192
    picture = metadata.llm_model_type.fast_vlm
    assert (picture.image_tensor_height, picture.image_tensor_width) == (32, 48)
    assert not metadata.HasField("start_token")


def test_unused_rows_get_names_and_texts_keep_their_ids(
    tokenizer: FastVLMTokenizer, tmp_path: Path
) -> None:
    path, size = write(tokenizer, tmp_path), tokenizer.vocabulary_size()
    assert fill_vocabulary(path, size) == size
    assert fill_vocabulary(path, size + 7) == size + 7
    filled = tokenizers.Tokenizer.from_file(str(path))
    assert filled.get_vocab_size() == size + 7
    assert filled.id_to_token(size + 6) == RESERVED.format(size + 6)
    for text in (*TEXTS[:2], "<|im_start|>user\nred<image>", RESERVED.format(size + 6)):
        ids = filled.encode(text, add_special_tokens=False).ids
        assert ids == list(tokenizer.tokenize(text))


def test_added_tokens_outside_of_the_table_keep_their_ids(
    tokenizer: FastVLMTokenizer, tmp_path: Path
) -> None:
    path = write(tokenizer, tmp_path)
    data = json.loads(path.read_text(encoding="utf-8"))
    for token in data["added_tokens"]:
        del data["model"]["vocab"][token["content"]]
    path.write_text(json.dumps(data), encoding="utf-8")
    fill_vocabulary(path, tokenizer.vocabulary_size() + 3)
    filled = tokenizers.Tokenizer.from_file(str(path))
    assert filled.token_to_id("<|im_end|>") == tokenizer.end_token_id


def test_a_tokenizer_of_another_model_is_refused(
    tokenizer: FastVLMTokenizer, tmp_path: Path
) -> None:
    path = write(tokenizer, tmp_path)
    with pytest.raises(ExportError, match="do not belong together"):
        fill_vocabulary(path, tokenizer.vocabulary_size() - 1)
    path.write_text(json.dumps({"model": {"type": "WordPiece", "vocab": {}}}))
    with pytest.raises(ExportError, match="must hold a BPE"):
        fill_vocabulary(path, 10)
