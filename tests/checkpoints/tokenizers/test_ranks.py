"""Merge rules out of ranks, on a small table and on Qwen's real one."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from dl_techniques.checkpoints.tokenizers import (
    byte_symbols,
    read_ranks,
    tokenizer_from_files,
    vocabulary_of,
)
from dl_techniques.errors import CheckpointError
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import as_text, render
from tests.parity.real_files import out_of_wheel

pytestmark = pytest.mark.once

SPECIAL = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
PROMPT = [
    *(151644, 8948, 198, 2610, 525, 264, 10950, 17847, 13, 151645, 198, 151644, 872, 198),
    *(74785, 279, 2168, 13, 151645, 198, 151644, 77091, 198),
]


def test_bytes_have_256_symbols() -> None:
    symbols = byte_symbols()
    assert len(set(symbols)) == 256
    assert symbols[ord("a")] == "a" and symbols[ord(" ")] == "Ġ" and symbols[ord("\n")] == "Ċ"


def test_merges_are_those_that_make_each_token() -> None:
    ranks = {bytes([b]): b for b in range(256)}
    ranks |= {b"in": 256, b" t": 257, b"th": 258, b"ing": 259, b" th": 260, b" thing": 261}
    vocabulary, merges = vocabulary_of(ranks)
    assert merges == ["i n", "Ġ t", "t h", "in g", "Ġt h", "Ġth ing"]
    assert vocabulary["Ġthing"] == 261 and len(vocabulary) == 262


def test_a_token_that_no_merge_makes_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="cannot be made by merges"):
        vocabulary_of({bytes([b]): b for b in range(256)} | {b"abc": 256})


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tiktoken"
    path.write_text("IQ== 0\nnothing\n")
    with pytest.raises(CheckpointError, match="line 2"):
        read_ranks(path)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Qwen's real ranks and the three control tokens of Qwen2."""
    folder = tmp_path_factory.mktemp("qwen")
    file = out_of_wheel("dashscope-*.whl", "dashscope/resources/qwen.tiktoken", folder)
    file.rename(folder / "qwen.tiktoken")
    added = {str(i): {"content": t, "special": True} for t, i in SPECIAL.items()}
    config = {"eos_token": "<|im_end|>", "added_tokens_decoder": added}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_qwens_real_vocabulary_gives_the_real_ids(qwen: Path) -> None:
    tokenizer = tokenizer_from_files(qwen, rows=151936)
    assert tokenizer.chat_template == "chatml"
    assert tokenizer.image_token_id == 151646 and tokenizer.end_token_id == 151645
    text = as_text(render([{"role": "user", "content": "Describe the image."}]))
    assert list(tokenizer.tokenize(text)) == PROMPT
    assert tokenizer.detokenize(PROMPT) == text


@pytest.mark.full
def test_qwens_real_merges_equal_its_ranks(qwen: Path) -> None:
    """Byte-pair encoding straight from the ranks, written out, against the merges."""
    ranks = read_ranks(qwen / "qwen.tiktoken")
    tokenizer = tokenizer_from_files(qwen)
    words = [
        "internationalization",
        " antidisestablishmentarianism",
        "日本語のテキスト",
        "👩‍👩‍👧‍👦",
    ]
    for word in [*words, "naïveté", " Größenordnung", "}}\n", "############"]:
        pieces = [bytes([b]) for b in word.encode()]
        while True:
            pairs = [(ranks.get(a + b), i) for i, (a, b) in enumerate(pairwise(pieces))]
            best = min(((r, i) for r, i in pairs if r is not None), default=None)
            if best is None:
                break
            i = best[1]
            pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
        assert len(word.split()) == 1
        assert tokenizer.tokenize_plain(word) == [ranks[p] for p in pieces], word
