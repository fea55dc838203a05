"""A `tokenizer.json` put together from a vocabulary, merge rules and added tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dl_techniques.errors import CheckpointError
from dl_techniques.models.vlm.fast_vlm.prompt.byte_level import QWEN2_PATTERN, parse_merges

Json = dict[str, Any]

# Llama 3's and Qwen2's word splitting differ in one place: up to three digits stay together.
LLAMA3_PATTERN = QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def _bytes(prefix_space: bool, use_regex: bool) -> Json:
    return {
        "type": "ByteLevel",
        "add_prefix_space": prefix_space,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _split(pattern: str) -> Json:
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    return {"type": "Sequence", "pretokenizers": [split, _bytes(False, False)]}


def _digits(prefix_space: bool) -> Json:
    digits = {"type": "Digits", "individual_digits": True}
    return {"type": "Sequence", "pretokenizers": [digits, _bytes(prefix_space, True)]}


WORD_SPLITTERS: dict[str, Callable[[bool], Json]] = {
    "gpt2": lambda prefix: _bytes(prefix, True),
    "qwen2": lambda prefix: _split(QWEN2_PATTERN),
    "llama3": lambda prefix: _split(LLAMA3_PATTERN),
    "smollm": _digits,
}
"""How byte-level families cut a text into words, by name; given whether a blank goes in front."""


def byte_level_json(
    splitter: str,
    vocabulary: Mapping[str, int],
    merges: Sequence[str],
    added: Mapping[str, int],
    special: Sequence[str],
    prefix_space: bool = False,
) -> Json:
    """The content of a byte-level BPE's `tokenizer.json`.

    Args:
        splitter: key of `WORD_SPLITTERS`.
        vocabulary: token -> id.
        merges: rules in the order of their rank, `"a b"` each.
        added: further tokens that are never split -> id; some may be in the vocabulary.
        special: those of `added` that are control tokens.
        prefix_space: put a blank in front of every text.

    Raises:
        CheckpointError: a merge rule and the vocabulary do not belong together.
    """
    try:
        pairs = parse_merges(merges, vocabulary)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    tokens = sorted(added.items(), key=lambda item: item[1])
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(name, number, name in special) for name, number in tokens],
        "normalizer": {"type": "NFC"} if splitter == "qwen2" else None,
        "pre_tokenizer": WORD_SPLITTERS[splitter](prefix_space),
        "post_processor": None,
        "decoder": _bytes(True, True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(vocabulary),
            "merges": [list(pair) for pair in pairs],
        },
    }


def _added(name: str, number: int, special: bool) -> Json:
    return {
        "id": number,
        "content": name,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }
