"""What one call of generate() or stream() asks for, checked and in arrays."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np

from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.answer.alignment import Prompts
from dl_techniques.models.vlm.fast_vlm.answer.choice import Choice
from dl_techniques.models.vlm.fast_vlm.prompt.content import spoken
from dl_techniques.models.vlm.fast_vlm.prompt.records import Record, to_records
from dl_techniques.typing import Tensor

StopIds = Literal["auto"] | Sequence[int] | None


@dataclass(frozen=True)
class Request:
    """Arrays of one batch and how its answers are to be made.

    Attributes:
        inputs: As `generate_preprocess` gives them.
        prompts: The same, aligned.
        limits: int[B]. Most new tokens of every row.
        stop_ids: Tokens that end an answer.
        choice: How its tokens are chosen.
        questions: The last message of every prompt, where the prompts are texts.
    """

    inputs: Mapping[str, Any]
    prompts: Prompts
    limits: np.ndarray
    stop_ids: Collection[int]
    choice: Choice
    questions: Sequence[str] = ()

    @property
    def length(self) -> int:
        """Places of a row, L."""
        return int(np.shape(self.inputs["token_ids"])[1])

    def pictures(self, row: int) -> np.ndarray:
        """The pictures of a row: float[N, S, S, 3]."""
        return self._array("images")[row][self.prompts.used[row]]

    def contents(self) -> list[list[np.ndarray]]:
        """Of every row its own tokens and pictures, without padding."""
        ids, mask, images = (self._array(k) for k in ("token_ids", "padding_mask", "images"))
        mask = mask.astype(bool)
        return [
            [ids[i][mask[i]].astype("int32"), images[i][used]]
            for i, used in enumerate(self.prompts.used)
        ]

    def with_prompts(self, answers: Sequence[Sequence[int]]) -> list[list[int]]:
        """Every answer behind its prompt."""
        prompts = (row[0].tolist() for row in self.contents())
        return [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]

    def _array(self, key: str) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(self.inputs[key]))


def questions_of(batch: Any) -> list[str]:
    """The last message of every prompt."""
    return [spoken(record.messages[-1]) for record in to_records(batch)]


def limits_of(
    lengths: np.ndarray, longest: int, max_new_tokens: Sequence[int | None]
) -> np.ndarray:
    """Most new tokens of every row: int[B].

    Args:
        lengths: int[B]. Tokens of every prompt.
        longest: Most tokens of prompt and answer together.
        max_new_tokens: B times the most tokens of an answer; None for what `longest` leaves.

    Raises:
        PromptError: a prompt leaves no room, or a number of tokens is less than 1.
    """
    if (lengths >= longest).any():
        raise PromptError(
            f"a prompt has {int(lengths.max())} tokens, which leaves no room for an answer in "
            f"{longest}; shorten it or use fewer pictures"
        )
    limits = longest - lengths
    for i, wanted in enumerate(max_new_tokens):
        if wanted is None:
            continue
        if wanted < 1:
            raise PromptError(f"max_new_tokens must be at least 1, got {wanted}")
        limits[i] = min(limits[i], wanted)
    return limits


def stop_ids_of(preprocessor: keras.layers.Layer, stop_token_ids: StopIds) -> tuple[int, ...]:
    """The tokens that end an answer; `"auto"` asks the preprocessor's tokenizer.

    Raises:
        PromptError: `"auto"` without a preprocessor, or anything but token ids.
    """
    if stop_token_ids is None:
        return ()
    if not (isinstance(stop_token_ids, str) and stop_token_ids == "auto"):
        return _token_ids(stop_token_ids)
    if preprocessor is None:
        raise PromptError(
            'stop_token_ids="auto" needs a preprocessor; pass the ids, or None to write until '
            "the length is used up"
        )
    tokenizer = preprocessor.tokenizer
    ids = (getattr(tokenizer, name, None) for name in ("end_token_id", "end_token2_id"))
    return tuple(int(i) for i in ids if i is not None)


def _token_ids(given: Any) -> tuple[int, ...]:
    """Whole numbers of at least 0."""
    try:
        ids = tuple(operator.index(i) for i in given)
    except TypeError:
        ids = (-1,)
    if isinstance(given, (str, bytes)) or any(i < 0 for i in ids):
        raise PromptError(
            'stop_token_ids must be "auto", None, or a list of token ids (whole numbers; '
            f"tokenizer.tokenize_plain(text) gives those of a text), got {given!r:.100}"
        )
    return ids


def pad_rows(rows: Sequence[Sequence[int]], length: int) -> dict[str, np.ndarray]:
    """Rows as `token_ids` int32[B, length] and `padding_mask` bool[B, length]."""
    token_ids = np.zeros((len(rows), length), "int32")
    mask = np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        token_ids[i, : len(row)] = row
        mask[i, : len(row)] = True
    return {"token_ids": token_ids, "padding_mask": mask}


def batches_of(inputs: Tensor) -> Iterator[Any]:
    """The batches of a tf.data.Dataset; anything else is one batch."""
    if hasattr(inputs, "as_numpy_iterator"):
        for batch in inputs.as_numpy_iterator():
            # All its texts are bytes; NumPy's tell that they are no mistake of the caller's.
            yield keras.tree.map_structure(_from_tensorflow, batch)
    else:
        yield inputs


def _from_tensorflow(leaf: Any) -> Any:
    return np.bytes_(leaf) if isinstance(leaf, bytes) else leaf


def is_single(inputs: Tensor) -> bool:
    """Whether inputs are one prompt and not a list of prompts."""
    if isinstance(inputs, Mapping) and "messages" in inputs:
        messages = inputs["messages"]
        return len(messages) > 0 and isinstance(messages[0], Mapping)
    value = inputs.get("prompts") if isinstance(inputs, Mapping) else inputs
    return isinstance(value, (str, bytes, Record))
