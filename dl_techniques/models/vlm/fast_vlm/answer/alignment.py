"""Prompts on their way to the model: aligned at their ends, rounded up to bucket lengths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from dl_techniques.errors import PromptError


def bucket(length: int, smallest: int = 16) -> int:
    """Rounds a length up to 16, 24, 32, 48, 64, 96, 128, ...

    Example:
        >>> [bucket(n) for n in (1, 17, 33, 100)]
        [16, 24, 48, 128]
    """
    size = smallest
    while size < length:
        if size + size // 2 >= length:
            return size + size // 2
        size *= 2
    return size


def prompt_bucket(length: int) -> int:
    """Rounds a prompt's length up: like `bucket`, but in steps of an eighth from 256 on.

    Every row of a prompt is computed, the padding too; that of a cache is only looked at. With a
    picture of 256 rows and a short question `bucket` would have a third of them computed in vain.

    Example:
        >>> [prompt_bucket(n) for n in (100, 257, 280, 520)]
        [128, 288, 288, 576]
    """
    if length <= 256:
        return bucket(length)
    step = 1 << ((length - 1).bit_length() - 4)
    return -(-length // step) * step


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts aligned at their ends and padded to a bucket.

    Attributes:
        token_ids: int32[B, P]; row i stands in the slots `offsets[i] .. length`.
        offsets: int32[B].
        length: Tokens of the longest row.
        vision_indices: int32[B, M]; slot of every picture row, P for unused ones.
        used: bool[B, N]. Which picture slots hold a picture.
    """

    token_ids: np.ndarray
    offsets: np.ndarray
    length: int
    vision_indices: np.ndarray
    used: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """int[B]. Tokens of every row."""
        return self.length - self.offsets


def align_prompts(inputs: Mapping[str, Any], tokens_per_image: int) -> Prompts:
    """Aligns right-padded prompts at their ends.

    Args:
        inputs: `token_ids`, `padding_mask`, `vision_indices` as `generate_preprocess` gives them.
        tokens_per_image: Rows of a picture, T.

    Raises:
        PromptError: a row is empty or padded elsewhere than on the right.
    """
    ids = np.asarray(keras.ops.convert_to_numpy(inputs["token_ids"]), "int32")
    mask = np.asarray(keras.ops.convert_to_numpy(inputs["padding_mask"])).astype(bool)
    places = np.asarray(keras.ops.convert_to_numpy(inputs["vision_indices"]), "int32")
    lengths = mask.sum(axis=1)
    if not lengths.all() or not (mask == (np.arange(mask.shape[1]) < lengths[:, None])).all():
        raise PromptError(
            "every row of padding_mask must be ones, then zeros, with at least one 1; got rows of "
            f"{lengths.tolist()} ones"
        )
    longest = int(lengths.max())
    size = prompt_bucket(longest)
    offsets = (longest - lengths).astype("int32")
    token_ids = np.zeros((len(ids), size), "int32")
    for row, offset, old in zip(token_ids, offsets, ids, strict=True):
        row[offset:longest] = old[: longest - offset]
    inside = places < ids.shape[1]
    vision_indices = np.where(inside, places + offsets[:, None], size).astype("int32")
    used = inside[:, ::tokens_per_image] if places.shape[1] else np.zeros((len(ids), 0), bool)
    return Prompts(token_ids, offsets, longest, vision_indices, used)
