"""What the reader of tokenizer folders refuses, and that presets keep what it read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dl_techniques.checkpoints.tokenizers import tokenizer_from_files
from dl_techniques.errors import CheckpointError, PromptError
from dl_techniques.models.vlm.fast_vlm import FastVLMJsonTokenizer
from tests.parity import tokenizer_families as families

pytestmark = pytest.mark.once


def folder_of(name: str, path: Path) -> Path:
    return families.save(name, families.build(name), path)


def test_an_empty_folder_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json, or vocab\.json and merges\.txt"):
        tokenizer_from_files(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"), [("{", "no JSON"), ("[]", "expected an object"), ("{}", "holds no model")]
)
def test_a_damaged_file_is_named(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=said):
        tokenizer_from_files(tmp_path)


def test_a_broken_model_inside_is_one_line(tmp_path: Path) -> None:
    folder = folder_of("qwen2", tmp_path)
    data = json.loads((folder / "tokenizer.json").read_text())
    data["model"]["merges"].append(["not", "there"])
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="no usable tokenizer.json") as caught:
        tokenizer_from_files(folder)
    assert "\n" not in str(caught.value)


def test_older_files_need_to_know_their_family(tmp_path: Path) -> None:
    folder = families.save_parts("qwen2", families.build("qwen2"), tmp_path)
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="tokenizer_class"):
        tokenizer_from_files(folder)


def test_merges_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    folder = families.save_parts("qwen2", families.build("qwen2"), tmp_path)
    (folder / "merges.txt").write_text("zq xq\n")
    with pytest.raises(CheckpointError, match="belong together"):
        tokenizer_from_files(folder)


def test_ids_with_a_gap_are_refused(tmp_path: Path) -> None:
    folder = folder_of("qwen2", tmp_path)
    data = json.loads((folder / "tokenizer.json").read_text())
    data["added_tokens"][-1]["id"] += 5
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="<|im_end|>"):
        tokenizer_from_files(folder)


def test_unknown_control_tokens_need_a_named_template(tmp_path: Path) -> None:
    folder = folder_of("qwen2", tmp_path)
    text = (folder / "tokenizer.json").read_text().replace("<|im_", "<|xx_")
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(PromptError, match="chat template is unknown"):
        tokenizer_from_files(folder)
    with pytest.raises(CheckpointError, match="im_end"):
        tokenizer_from_files(folder, chat_template="chatml")


def test_a_full_table_without_spare_tokens_says_so(tmp_path: Path) -> None:
    engine = families.build("qwen2")
    folder = families.save("qwen2", engine, tmp_path)
    size = engine.get_vocab_size()
    with pytest.raises(CheckpointError, match="image_token"):
        tokenizer_from_files(folder, rows=size)
    chosen = tokenizer_from_files(folder, rows=size, image_token="<|endoftext|>")
    assert chosen.vocabulary_size() == size


@pytest.mark.parametrize("name", ["llama3", "gemma"])
def test_assets_and_config_bring_it_back(name: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_from_files(folder_of(name, tmp_path))
    tokenizer.save_assets(str(tmp_path))
    again = FastVLMJsonTokenizer.from_config(tokenizer.get_config())
    again.load_assets(str(tmp_path))
    assert again.vocabulary == tokenizer.vocabulary
    assert again.chat_template == tokenizer.chat_template
    for role in ("image", "start", "end", "end2", "pad"):
        name = {"end2": "end_token2_id"}.get(role, f"{role}_token_id")
        assert getattr(again, name) == getattr(tokenizer, name), role
    for text in families.PROBES:
        assert again.tokenize_plain(text) == tokenizer.tokenize_plain(text)
