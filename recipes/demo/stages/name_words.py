"""One token a name: a decoder that has to say a name it reads copies one token, not a spelling.

A name gets two tokens, as an answer begins with it and as it stands in a sentence, with a space in
front. No merge rule leads to them, so text is tokenized as before: they are only ever written by
the decoder, and shown as the name. Training says them by marks of Unicode's private use in answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

from dl_techniques import FastVLMTokenizer

FIRST_MARK = 0xE000
_BYTES = ByteLevel(add_prefix_space=False, use_regex=False)


def forms(name: str) -> tuple[str, str]:
    """A name as an answer begins with it and as it stands in a sentence."""
    return name, f" {name}"


def piece(text: str) -> str:
    """A text as one entry of a byte-level vocabulary.

    Example:
        >>> piece(" polar bear")
        'ĠpolarĠbear'
    """
    return "".join(part for part, _ in _BYTES.pre_tokenize_str(text))


def with_names(tokenizer: FastVLMTokenizer, names: Sequence[str]) -> FastVLMTokenizer:
    """The same tokenizer with two more tokens a name, where it has none yet."""
    vocabulary, number = dict(tokenizer.vocabulary), tokenizer.vocabulary_size()
    for name in names:
        for text in forms(name):
            if piece(text) not in vocabulary:
                vocabulary[piece(text)] = number
                number += 1
    return FastVLMTokenizer(vocabulary=vocabulary, merges=list(tokenizer.merges))


def name_ids(tokenizer: FastVLMTokenizer, names: Sequence[str]) -> np.ndarray:
    """int[N, 2]: the tokens of every name in both forms."""
    return np.array([[tokenizer.vocabulary[piece(t)] for t in forms(name)] for name in names])


def longer_decoder(decoder: Any, old: FastVLMTokenizer, new: FastVLMTokenizer) -> Any:
    """A decoder with rows for the new tokens; each begins as the mean of its spelling's.

    Args:
        decoder: a keras-hub backbone with tied embeddings.
        old: its tokenizer.
        new: from `with_names`.
    """
    config = {**decoder.get_config(), "vocabulary_size": new.vocabulary_size()}
    longer = type(decoder).from_config(config)
    known = keras.ops.convert_to_numpy(decoder.token_embedding.embeddings)
    rows = np.zeros((new.vocabulary_size(), known.shape[1]), "float32")
    rows[: len(known)] = known
    usual = np.linalg.norm(known, axis=1).mean()
    for number in range(len(known), len(rows)):
        spelling = known[old.tokenize_plain(new.detokenize([number]))].mean(0)
        rows[number] = spelling * (usual / max(np.linalg.norm(spelling), 1e-6))
    for ours, theirs in zip(longer.weights, decoder.weights, strict=True):
        whole = ours.shape == theirs.shape
        ours.assign(keras.ops.convert_to_numpy(theirs) if whole else rows)
    return longer


def marked(text: str, names: Sequence[str], places: Sequence[int]) -> str:
    """An answer with marks for the names in it, longer names before what is part of them.

    Args:
        text: the answer.
        names: that may be in it.
        places: of each among all names.

    Example:
        >>> [hex(ord(c)) for c in marked("a dog", ["dog"], [3]) if ord(c) >= FIRST_MARK]
        ['0xe007']
    """
    for name, place in sorted(zip(names, places, strict=True), key=lambda pair: -len(pair[0])):
        mark = FIRST_MARK + 2 * place
        word = re.escape(name)
        text = re.sub(rf"^{word}(?![\w-])", chr(mark), text)
        text = re.sub(rf" {word}(?![\w-])", chr(mark + 1), text)
    return text


class MarkingTokenizer:
    """A tokenizer that reads marks as the names' tokens; everything else is the tokenizer's own.

    Args:
        tokenizer: from `with_names`.
        names: all names.
    """

    def __init__(self, tokenizer: FastVLMTokenizer, names: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.ids = name_ids(tokenizer, names).ravel()
        last = FIRST_MARK + len(self.ids) - 1
        self.marks = re.compile(f"([{chr(FIRST_MARK)}-{chr(last)}])")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def tokenize_plain_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Of many texts, with marks."""
        parts = [self.marks.split(text) for text in texts]
        plain = iter(self.tokenizer.tokenize_plain_batch([p for row in parts for p in row[::2]]))
        rows = []
        for row in parts:
            ids: list[int] = []
            for place, part in enumerate(row):
                ids += [int(self.ids[ord(part) - FIRST_MARK])] if place % 2 else next(plain)
            rows.append(ids)
        return rows
