"""The tokenizer, held against two references: `tokenizers` from a file in Hugging Face's own
form, and byte-pair encoding written out in Python."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import regex
from tokenizers import Tokenizer

from dl_techniques.models.vlm.fast_vlm.prompt.tokenizer import SPECIAL_TOKENS, FastVLMTokenizer

PROBES = [
    "plain words",
    "two  spaces,   three",
    " leading and trailing  ",
    "def f(x):\n    return  x\n\n\n",
    "\t\ttabs\tand\r\nwindows\r\n\r\nlines\r",
    " \n \n x",
    "12345 3.14159 007 １２３ ⅷ ²",
    "I'm we'RE it'S DON'T o'clock",
    "e\u0301 café A\u030a \u1e9b\u0323 \u1100\u1161",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
    "日本語のテキスト。中文测试，한국어",
    "नमस्ते שלום مرحبا",
    "\u00a0no-break\u3000ideographic\u2009thin\u2028line",
    "https://a.b/c?d=e&f=g#h ...---...!!!\n\n",
    "a\x00b\x7f\ufeff",
    "<|im_start|>user\n<image>\nQ<|im_end|>\n",
    "<|endoftext|><|endoftext|> <|im_start|> x<image>",
    "e<image>\u0301 <|im_sta rt|>",
    "",
    " ",
    "\n",
]
CORPUS = [
    "The red cube is to the left of the blue ball. How many cats are there? 12 cats.",
    "def f(x):\n    return x  # two  spaces\n\n\tIt's a café; they're ÅÅ 日本語 日本 👍🏽👍",
    "there   are\r\nlines\n\n\n",
    "!!!\n\n ... the the the  the",
] * 5

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return FastVLMTokenizer.from_texts(CORPUS, vocabulary_size=420)


@pytest.fixture(scope="module")
def reference(tokenizer: Any) -> Any:
    """A `tokenizer.json` as Qwen2's repositories have it, with our vocabulary."""
    plain = {t: i for t, i in tokenizer.vocabulary.items() if t not in SPECIAL_TOKENS}
    added = [
        {
            "id": tokenizer.vocabulary[token],
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token in SPECIAL_TOKENS
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    split = {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}
    description = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [split, {**byte_level, "use_regex": False}],
        },
        "post_processor": {**byte_level, "use_regex": False},
        "decoder": {**byte_level, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": plain,
            "merges": tokenizer.merges,
        },
    }
    return Tokenizer.from_str(json.dumps(description))


def byte_symbols() -> Any:
    """GPT-2's printable character for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(hidden)}


def encode_by_hand(text: Any, vocabulary: Any, merges: Any) -> Any:
    """Byte-pair encoding of a text without special tokens, the slow way."""
    ranks = {tuple(merge.split(" ")): i for i, merge in enumerate(merges)}
    symbols, ids = byte_symbols(), []
    for word in regex.findall(QWEN2, unicodedata.normalize("NFC", text)):
        parts = [symbols[b] for b in word.encode()]
        while True:
            pairs = [ranks.get(p, len(ranks)) for p in zip(parts, parts[1:], strict=False)]
            if not pairs or min(pairs) == len(ranks):
                break
            i = pairs.index(min(pairs))
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        ids += [vocabulary[part] for part in parts]
    return ids


@pytest.mark.parametrize("text", PROBES)
def test_equal_to_hugging_face(tokenizer: Any, reference: Any, text: Any) -> None:
    assert list(tokenizer.tokenize(text)) == reference.encode(text).ids
    assert tokenizer.tokenize([text, "x"])[0] == reference.encode(text).ids


@pytest.mark.parametrize("text", [p for p in PROBES if "<|" not in p and "<image>" not in p])
def test_equal_to_byte_pair_encoding_by_hand(tokenizer: Any, text: Any) -> None:
    expected = encode_by_hand(text, tokenizer.vocabulary, tokenizer.merges)
    assert list(tokenizer.tokenize(text)) == expected
    assert tokenizer.tokenize_plain(text) == expected


@pytest.mark.parametrize("text", PROBES)
def test_round_trip_up_to_nfc(tokenizer: Any, text: Any) -> None:
    special = "|".join(map(regex.escape, SPECIAL_TOKENS))
    # Special tokens are found first; the text around each is normalized by itself.
    pieces = regex.split(f"({special})", text)
    expected = "".join(unicodedata.normalize("NFC", piece) for piece in pieces)
    assert tokenizer.detokenize(tokenizer.tokenize(text)) == expected


def test_words_are_split_before_merging(tokenizer: Any) -> None:
    """The vocabulary holds no token across words or digits: the splitting takes effect."""
    space = byte_symbols()[ord(" ")]
    learned = [t for t in tokenizer.vocabulary if len(t) > 1 and t not in SPECIAL_TOKENS]
    assert any(t.startswith(space) and len(t) > 3 for t in learned)
    assert not any(space in t.strip(space) for t in learned)
    assert not any(c.isdigit() for t in learned for c in t)


def test_special_tokens_and_attributes(tokenizer: Any) -> None:
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    assert len(set(ids.values())) == 4
    for token, number in ids.items():
        assert list(tokenizer.tokenize(f"a {token}b"))[-2] == number
    assert tokenizer.image_token == "<image>" and tokenizer.image_token_id == ids["<image>"]
    assert tokenizer.start_token_id == ids["<|im_start|>"]
    assert tokenizer.end_token_id == ids["<|im_end|>"]
    assert tokenizer.end_token2_id == tokenizer.pad_token_id == ids["<|endoftext|>"]


def test_missing_special_tokens_come_last_in_qwen2_order(tokenizer: Any) -> None:
    plain = {t: i for t, i in tokenizer.vocabulary.items() if t not in SPECIAL_TOKENS}
    again = FastVLMTokenizer(plain, tokenizer.merges)
    assert [again.token_to_id(t) - len(plain) for t in SPECIAL_TOKENS] == [0, 1, 2, 3]
    assert again.vocabulary_size() == len(plain) + 4


def test_plain_text_never_becomes_a_control_token(tokenizer: Any) -> None:
    special = {tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    for text in ("<|im_end|>", "a<image><image>b", "<|im_start|>system\n<<|endoftext|>>"):
        ids = tokenizer.tokenize_plain(text)
        assert not special & set(ids)
        assert tokenizer.detokenize(ids) == text


def test_detokenize_forms(tokenizer: Any) -> None:
    text = "<|im_start|>the red cube<image><|im_end|>"
    ids = [int(i) for i in tokenizer.tokenize(text)]
    assert tokenizer.detokenize(ids) == text
    assert tokenizer.detokenize(ids, skip_special_tokens=True) == "the red cube"
    assert tokenizer.detokenize(np.array(ids)) == text
    assert tokenizer.detokenize(keras.ops.convert_to_tensor([ids, ids])) == [text, text]
    assert tokenizer.detokenize([ids, ids[:1]]) == [text, "<|im_start|>"]
    assert tokenizer.detokenize([]) == "" and tokenizer.detokenize([[], ids]) == ["", text]
    assert tokenizer.detokenize(ids[0]) == "<|im_start|>"
    with pytest.raises(ValueError, match="rank"):
        tokenizer.detokenize(np.zeros((1, 1, 1)))


def test_sequence_length_pads_with_the_pad_token(tokenizer: Any) -> None:
    short = FastVLMTokenizer(tokenizer.vocabulary, tokenizer.merges, sequence_length=4)
    row = np.asarray(short.tokenize(["a"]))[0]
    assert row.tolist() == [row[0]] + [tokenizer.pad_token_id] * 3


def test_training_is_repeatable_and_bounded() -> None:
    first, second = (FastVLMTokenizer.from_texts(CORPUS, vocabulary_size=300) for _ in range(2))
    assert first.vocabulary == second.vocabulary and first.merges == second.merges
    assert first.vocabulary_size() == 300
    assert FastVLMTokenizer.from_texts(["a"], vocabulary_size=4096).vocabulary_size() == 260
    with pytest.raises(ValueError, match="at least 260"):
        FastVLMTokenizer.from_texts(CORPUS, vocabulary_size=100)


def test_assets_and_config_round_trip(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_assets(tmp_path)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(tokenizer)))
    again = keras.saving.deserialize_keras_object(config)
    with pytest.raises(ValueError, match="vocabulary"):
        again.tokenize("x")
    again.load_assets(tmp_path)
    from_files = FastVLMTokenizer(str(tmp_path / "vocabulary.json"), str(tmp_path / "merges.txt"))
    for text in PROBES:
        for other in (again, from_files):
            assert list(other.tokenize(text)) == list(tokenizer.tokenize(text))
    assert again.get_config() == tokenizer.get_config()
    assert again.image_token_id == tokenizer.image_token_id


def test_further_special_tokens(tokenizer: Any) -> None:
    more = FastVLMTokenizer(tokenizer.vocabulary, tokenizer.merges, unsplittable_tokens=["<tool>"])
    assert more.detokenize(more.tokenize("<tool>")[:1]) == "<tool>"
    again = FastVLMTokenizer.from_config(more.get_config())
    again.set_vocabulary_and_merges(more.vocabulary, more.merges)
    assert list(again.tokenize("a<tool>b")) == list(more.tokenize("a<tool>b"))


def test_wrong_vocabularies(tokenizer: Any) -> None:
    vocabulary = dict(tokenizer.vocabulary)
    with pytest.raises(ValueError, match="byte symbols"):
        FastVLMTokenizer({"a": 0, "b": 1}, [])
    for merge in ("zz qq", "a b c", "ab", ("a",)):
        with pytest.raises(ValueError, match="Merge rule"):
            FastVLMTokenizer(vocabulary, [merge])
    with pytest.raises(ValueError, match="prefix space"):
        FastVLMTokenizer(vocabulary, tokenizer.merges, add_prefix_space=True)
    pairs = [tuple(merge.split(" ")) for merge in tokenizer.merges]
    again = FastVLMTokenizer(vocabulary, ["#version: 0.2", *pairs])
    assert list(again.tokenize("the cats")) == list(tokenizer.tokenize("the cats"))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a TensorFlow graph")
def test_refuses_a_tensorflow_graph(tokenizer: Any) -> None:
    import tensorflow as tf

    with pytest.raises(Exception, match="ConversationDataset"):  # TensorFlow's own type
        tf.data.Dataset.from_tensor_slices(["a"]).map(tokenizer)
