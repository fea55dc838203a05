"""Tokenizers of every family against `tokenizers`, and rendered chats against Jinja templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest

from dl_techniques.checkpoints.language import tokenizer_from_files
from dl_techniques.models.vlm.fast_vlm import (
    FastVLMCausalLMPreprocessor,
    FastVLMImageConverter,
    FastVLMJsonTokenizer,
)
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import render
from tests.parity import tokenizer_families as families

NAMES = list(families.FAMILIES)
TURNS = [
    {"role": "user", "content": "How many cats are there?"},
    {"role": "assistant", "content": "12 cats."},
    {"role": "user", "content": "The  red\n\ncube?"},
]


@pytest.fixture(scope="module", params=NAMES)
def pair(request: Any, tmp_path_factory: Any) -> tuple[str, Any, FastVLMJsonTokenizer]:
    """A family, its tokenizer in `tokenizers`, and ours from the files."""
    engine = families.build(request.param)
    folder = families.save(request.param, engine, tmp_path_factory.mktemp("tokenizer"))
    return request.param, engine, tokenizer_from_files(folder)


def test_ids_and_texts_equal_those_of_the_file(pair: Any) -> None:
    name, engine, tokenizer = pair
    special = families.FAMILIES[name].special
    mixed = [f"{special[-1]}a{special[0]} \n{special[-1]}", f"x{special[1]}\n\ny"]
    for text in [*families.PROBES, *mixed]:
        expected = engine.encode(text, add_special_tokens=False).ids
        assert list(tokenizer.tokenize(text)) == expected, text
        ours = tokenizer.detokenize(expected) if expected else ""
        theirs = engine.decode(expected, skip_special_tokens=False)
        # Phi-3's file drops the blank in front, which it has put there itself.
        assert ours in (theirs, " " + theirs) if name == "phi3" else ours == theirs
    assert tokenizer.tokenize_plain_batch(families.PROBES) == [
        engine.encode(text, add_special_tokens=False).ids for text in families.PROBES
    ]


def test_text_that_spells_control_tokens_stays_text(pair: Any) -> None:
    name, _, tokenizer = pair
    control = {tokenizer.token_to_id(t) for t in families.FAMILIES[name].special}
    for token in families.FAMILIES[name].special:
        ids = tokenizer.tokenize_plain(f"a {token}b")
        assert not control - {tokenizer.vocabulary.get("<unk>")} & set(ids), token
        # Phi-3's file puts a blank in front of every piece.
        assert token in tokenizer.detokenize(ids).replace(" ", "")


@pytest.mark.parametrize("system", [None, "You are a helpful assistant."])
def test_chats_equal_the_published_template(pair: Any, system: str | None) -> None:
    name, engine, tokenizer = pair
    family = families.FAMILIES[name]
    if name == "opt" and system:
        pytest.skip("OPT has no template of its own, ours puts the system text on a line")
    assert tokenizer.chat_template == family.template
    turns = [{"role": "system", "content": system}, *TURNS] if system else TURNS
    text = jinja2.Template(family.jinja).render(
        messages=turns, add_generation_prompt=True, bos_token=family.config.get("bos_token")
    )
    preprocessor = FastVLMCausalLMPreprocessor(tokenizer, FastVLMImageConverter(16))
    segments = render(turns, system_prompt=None, template=tokenizer.chat_template)
    ids, learn = preprocessor.encode_segments(segments)
    assert ids.tolist() == engine.encode(text, add_special_tokens=False).ids
    answer = tokenizer.detokenize(ids[learn].tolist())
    assert answer.strip() == f"12 cats.{tokenizer.end_token}"


@pytest.mark.parametrize("name", ["qwen2", "opt"])
def test_older_files_give_the_same_tokenizer(name: str, tmp_path: Path) -> None:
    engine = families.build(name)
    tokenizer = tokenizer_from_files(families.save_parts(name, engine, tmp_path))
    for text in [*families.PROBES, families.FAMILIES[name].special[2] + "a"]:
        assert list(tokenizer.tokenize(text)) == engine.encode(text, add_special_tokens=False).ids
    ours = {k: v for k, v in tokenizer.vocabulary.items() if k != "<image>"}
    assert ours == engine.get_vocab()


def test_the_picture_takes_the_first_free_id_or_a_spare_token(tmp_path: Path) -> None:
    taken = {"llama3": "<|reserved_special_token_0|>", "smollm2": "<empty_output>"}
    spare = {**taken, "phi4": "<|dummy_0|>", "gemma": "<unused0>", "phi3": "<|placeholder1|>"}
    for name, token in spare.items():
        engine = families.build(name)
        size = engine.get_vocab_size()
        folder = families.save(name, engine, tmp_path)
        assert tokenizer_from_files(folder, rows=size + 1).image_token_id == size
        full = tokenizer_from_files(folder, rows=size)
        assert full.image_token == token and full.image_token_id == engine.token_to_id(token)
        assert full.vocabulary_size() == size
