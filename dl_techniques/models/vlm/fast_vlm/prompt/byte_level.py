"""Qwen2's byte-level BPE as an engine of the `tokenizers` library, and checks of its data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

Merge = str | tuple[str, str]

# Qwen2's word splitting, digit by digit. It must reach the library as a `Regex`: a plain string
# is taken literally there, never matches, and nothing is split at all.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build_engine(model: models.BPE) -> tokenizers.Tokenizer:
    """Normalizer (NFC), word splitting and decoder of Qwen2 around a BPE model."""
    engine = tokenizers.Tokenizer(model)
    engine.normalizer = normalizers.NFC()
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    engine.decoder = decoders.ByteLevel()
    return engine


def learn_merges(
    texts: Iterable[str], vocabulary_size: int, min_frequency: int
) -> tuple[dict[str, int], list[str]]:
    """Learn byte-pair merges.

    Args:
        texts: Plain texts.
        vocabulary_size: Upper bound of the number of tokens, at least 256.
        min_frequency: A pair seen less often is not merged.

    Returns:
        The vocabulary in the order of its ids, and the merge rules in rank order.
    """
    engine = build_engine(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=min_frequency,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator(texts, trainer)
    learned = json.loads(engine.to_str())["model"]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in learned["merges"]]
    return dict(sorted(learned["vocab"].items(), key=lambda item: item[1])), merges


def with_special_tokens(vocabulary: Mapping[str, int], special: Sequence[str]) -> dict[str, int]:
    """The vocabulary with the missing special tokens appended, in their order.

    Raises:
        ValueError: not all 256 bytes can be written.
    """
    result = dict(vocabulary)
    absent = [symbol for symbol in pre_tokenizers.ByteLevel.alphabet() if symbol not in result]
    if absent:
        raise ValueError(
            f"The vocabulary lacks {len(absent)} of the 256 byte symbols (e.g. {absent[0]!r}), "
            "so some texts could not be written. Pass a complete byte-level vocabulary or use "
            "FastVLMTokenizer.from_texts(texts)."
        )
    next_id = max(result.values()) + 1
    for token in special:
        if token not in result:
            result[token] = next_id
            next_id += 1
    return result


def parse_merges(merges: Sequence[Merge], vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """Merge rules as pairs.

    Raises:
        ValueError: a rule is no pair of tokens of the vocabulary.
    """
    pairs = []
    for merge in merges:
        if isinstance(merge, str) and (not merge or merge.startswith("#version:")):
            continue
        parts = merge.split(" ") if isinstance(merge, str) else list(merge)
        if len(parts) != 2 or parts[0] not in vocabulary or parts[1] not in vocabulary:
            raise ValueError(
                f"Merge rule {merge!r} must be two tokens of the vocabulary separated by one "
                "space; check that `vocabulary` and `merges` belong together."
            )
        pairs.append((parts[0], parts[1]))
    return pairs
