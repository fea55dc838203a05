"""Byte-level BPE for FastVLM: Qwen2's pre-tokenizer and normalizer, through `tokenizers`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from keras_hub import tokenizers as hub_tokenizers
from tokenizers import models

from dl_techniques.compat.keras_hub_pipeline import (
    add_special_token,
    check_vocabulary,
    in_tf_function,
)
from dl_techniques.data.damage import one_line
from dl_techniques.errors import DamagedFileError, PromptError
from dl_techniques.models.presets.vlm_folder import PresetMixin
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone
from dl_techniques.models.vlm.fast_vlm.prompt.byte_level import (
    Merge,
    build_engine,
    learn_merges,
    parse_merges,
    with_special_tokens,
)
from dl_techniques.models.vlm.fast_vlm.prompt.chat_template import (
    END_OF_TEXT,
    IMAGE,
    SPECIAL_TOKENS,
    TURN_END,
    TURN_START,
)
from dl_techniques.text import check_text
from dl_techniques.typing import Tensor


@keras.saving.register_keras_serializable(package="dl_techniques")
class FastVLMTokenizer(PresetMixin, hub_tokenizers.BytePairTokenizer):
    """Text to token ids and back, equal to Qwen2's tokenizer id for id.

    NFC normalization, Qwen2's word splitting, byte-level BPE: every text round trips up to NFC.
    The four special tokens (`<|endoftext|>`, `<|im_start|>`, `<|im_end|>`, `<image>`) are never
    split; a vocabulary that lacks them gets them appended in this order. Works on Python
    strings on every backend; it cannot run inside a `tf.data` graph.

    Attributes: `image_token_id`, `start_token_id` (`<|im_start|>`), `end_token_id`
    (`<|im_end|>`), `end_token2_id` and `pad_token_id` (both `<|endoftext|>`), and
    `chat_template`, the name of the marks around turns (`chat_families.TEMPLATES`).

    Args:
        vocabulary: dict of token to id, or the path of a `vocab.json`.
        merges: list of merge rules (`"a b"` or a pair), or the path of a `merges.txt`.
        unsplittable_tokens: list of str. Further special tokens; missing ones get new ids.
        add_prefix_space: bool. Only False; kept because saved configs carry it.
        **kwargs: `sequence_length`, `dtype`, `name`, ... of
            `keras_hub.tokenizers.BytePairTokenizer`.

    Raises:
        ValueError: a merge rule or one of the 256 byte symbols is missing in the vocabulary.

    Example:
        >>> tokenizer = FastVLMTokenizer.from_texts(["a red cube"] * 8, vocabulary_size=300)
        >>> tokenizer.detokenize(tokenizer.tokenize("a red cube"))
        'a red cube'

    Reference: Qwen2 technical report, https://arxiv.org/abs/2407.10671
    """

    backbone_cls = FastVLMBackbone
    chat_template = "fastvlm"

    def __init__(
        self,
        vocabulary: dict[str, int] | str | None = None,
        merges: Sequence[Merge] | str | None = None,
        unsplittable_tokens: Sequence[str] | None = None,
        add_prefix_space: bool = False,
        **kwargs: Any,
    ) -> None:
        if add_prefix_space:
            raise ValueError("FastVLMTokenizer never adds a prefix space (Qwen2 does not).")
        add_special_token(self, TURN_START, "start_token")
        add_special_token(self, TURN_END, "end_token")
        add_special_token(self, END_OF_TEXT, "end_token2")
        add_special_token(self, END_OF_TEXT, "pad_token")
        add_special_token(self, IMAGE, "image_token")
        # A list in a fixed order: the parent's default is a set, and saved files would differ
        # from run to run.
        special = list(dict.fromkeys([*SPECIAL_TOKENS, *(unsplittable_tokens or ())]))
        self._special_pattern = special_pattern(special)
        super().__init__(
            vocabulary=vocabulary, merges=merges, unsplittable_tokens=special, **kwargs
        )

    @classmethod
    def from_texts(
        cls, texts: Iterable[str], vocabulary_size: int = 2048, min_frequency: int = 2
    ) -> FastVLMTokenizer:
        """Learn a vocabulary from plain texts, with the pre-tokenizer used at run time.

        Args:
            texts: Texts without special tokens.
            vocabulary_size: Upper bound of the number of ids, special tokens included.
            min_frequency: A pair seen less often is not merged.

        Returns:
            A tokenizer with at most `vocabulary_size` ids, the same for the same texts.

        Raises:
            ValueError: `vocabulary_size` cannot hold the 256 bytes and the special tokens.
        """
        smallest = 256 + len(SPECIAL_TOKENS)
        if vocabulary_size < smallest:
            raise ValueError(
                f"vocabulary_size={vocabulary_size} is too small: 256 bytes and "
                f"{len(SPECIAL_TOKENS)} special tokens need at least {smallest}."
            )
        room = vocabulary_size - len(SPECIAL_TOKENS)
        vocabulary, merges = learn_merges(texts, room, min_frequency)
        return cls(vocabulary=vocabulary, merges=merges)

    def _set_vocabulary_and_merges_tf(
        self, vocabulary: Mapping[str, int], merges: Sequence[str]
    ) -> None:
        """Build nothing for TensorFlow graphs: this tokenizer runs in Python only."""

    def _set_vocabulary_and_merges_tokenizers(
        self, vocabulary: Mapping[str, int], merges: Sequence[Merge]
    ) -> None:
        self.vocabulary = with_special_tokens(vocabulary, self.unsplittable_tokens)
        pairs = parse_merges(merges, self.vocabulary)
        self.merges = [" ".join(pair) for pair in pairs]
        self._tokenizer = build_engine(models.BPE(vocab=self.vocabulary, merges=pairs))
        self._tokenizer.add_special_tokens(self.unsplittable_tokens)

    def load_assets(self, dir_path: str) -> None:
        """Reads the two files that `save_assets` wrote.

        Raises:
            DamagedFileError: they are damaged or do not belong together.
        """
        try:
            super().load_assets(dir_path)
        except Exception as error:  # the tokenizers library raises bare Exceptions
            raise DamagedFileError(
                f"{dir_path}: vocabulary.json and merges.txt are damaged or do not belong together "
                f"({one_line(error)}); download or write them again"
            ) from error

    def _use_tf_workflow(self) -> bool:
        if in_tf_function():
            raise PromptError(
                "FastVLMTokenizer runs in Python and cannot be part of a tf.data graph; "
                "feed the model from dl_techniques.data.ConversationDataset instead."
            )
        return False

    def to_hugging_face(self) -> str:
        """The content of a `tokenizer.json` that Hugging Face's `tokenizers` reads."""
        check_vocabulary(self)
        text: str = self._tokenizer.to_str()
        return text

    def vocabulary_size(self) -> int:
        """Number of rows that an embedding table needs: the largest id plus one."""
        check_vocabulary(self)
        return max(self.vocabulary.values()) + 1

    def tokenize_plain(self, text: str) -> list[int]:
        """Tokenize `text` as ordinary characters, whatever it spells.

        A `<|im_end|>` typed by a user becomes the pieces of that string, never the control
        token. Text without such strings gets the same ids as from `tokenize`.

        Raises:
            PromptError: it is no str, or holds half of a surrogate pair.
        """
        return self.tokenize_plain_batch([text])[0]

    def tokenize_plain_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`tokenize_plain` of many texts at once; equal texts are tokenized once."""
        check_vocabulary(self)
        pieces = {text: self._harmless_pieces(check_text(text, "a text")) for text in texts}
        flat = [piece for parts in pieces.values() for piece in parts]
        encoded = iter(self._tokenizer.encode_batch_fast(flat, add_special_tokens=False))
        ids = {
            text: [number for _ in parts for number in next(encoded).ids]
            for text, parts in pieces.items()
        }
        return [ids[text] for text in texts]

    def _harmless_pieces(self, text: str) -> list[str]:
        """Cut each special string after its first character, so that none is left whole."""
        cuts = [match.start() + 1 for match in self._special_pattern.finditer(text)]
        return [text[start:stop] for start, stop in pairwise([0, *cuts, len(text)])]

    def detokenize(self, inputs: Tensor, skip_special_tokens: bool = False) -> str | list[str]:
        """Turn ids back into text.

        Args:
            inputs: int[L] or int[B, L] (list, array, tensor) or a ragged list of lists.
            skip_special_tokens: Leave control tokens and picture placeholders out.

        Returns:
            One str for one sequence, a list of str for a batch. Bytes that do not form a
            character are shown as U+FFFD.
        """
        check_vocabulary(self)
        self._use_tf_workflow()
        rows, batched = _id_rows(inputs)
        texts = self._tokenizer.decode_batch(rows, skip_special_tokens=skip_special_tokens)
        return texts if batched else texts[0]


def special_pattern(special: Iterable[str]) -> re.Pattern[str]:
    """Finds every place where a text spells one of the special tokens."""
    # Longest first, as a lookahead: overlapping occurrences are all found.
    alternatives = "|".join(re.escape(t) for t in sorted(special, key=len, reverse=True))
    return re.compile(f"(?={alternatives})")


def _id_rows(inputs: Tensor) -> tuple[list[list[int]], bool]:
    """Rows of ids, and whether a batch was given."""
    if isinstance(inputs, (list, tuple)) and inputs and not np.isscalar(inputs[0]):
        rows = [np.asarray(keras.ops.convert_to_numpy(row)) for row in inputs]
        if any(row.ndim != 1 for row in rows):
            return _id_rows(np.stack(rows)) if rows[0].ndim == 0 else _bad_rank(rows[0].ndim + 1)
        return [row.astype("int64").tolist() for row in rows], True
    array = np.asarray(keras.ops.convert_to_numpy(inputs)).astype("int64")
    if array.ndim > 2:
        _bad_rank(array.ndim)
    return np.atleast_2d(array).tolist() if array.size else [[]], array.ndim == 2


def _bad_rank(rank: int) -> Any:
    raise ValueError(f"Token ids must be of rank 0, 1 or 2, got rank {rank}.")
