"""Conversations of unequal length as one batch of arrays, padded on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dl_techniques.errors import PromptError


@dataclass(frozen=True)
class EncodedConversation:
    """One conversation as ids, before padding.

    Attributes:
        token_ids: int32[n]; T placeholders in a row for each picture.
        learn: bool[n]; the tokens whose prediction is trained.
        image_positions: int32[pictures * T]; where the placeholders stand.
        images: uint8[pictures, S, S, 3]; the pictures, resized but not scaled.
    """

    token_ids: np.ndarray
    learn: np.ndarray
    image_positions: np.ndarray
    images: np.ndarray


def pack_text(
    rows: Sequence[EncodedConversation], length: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids int32[B, length] and padding mask bool[B, length]."""
    token_ids = np.full((len(rows), length), pad_id, "int32")
    padding_mask = np.zeros((len(rows), length), "bool")
    for i, row in enumerate(rows):
        token_ids[i, : len(row.token_ids)] = row.token_ids
        padding_mask[i, : len(row.token_ids)] = True
    return token_ids, padding_mask


def pack_indices(
    rows: Sequence[EncodedConversation], length: int, rows_per_batch: int
) -> np.ndarray:
    """Positions of all placeholders, int32[B, rows_per_batch]; `length` where there is none."""
    indices = np.full((len(rows), rows_per_batch), length, "int32")
    for i, row in enumerate(rows):
        indices[i, : len(row.image_positions)] = row.image_positions
    return indices


def pack_targets(
    rows: Sequence[EncodedConversation], length: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """The next token of each position int32[B, length], and its weight float32[B, length]."""
    targets = np.full((len(rows), length), pad_id, "int32")
    weight = np.zeros((len(rows), length), "float32")
    for i, row in enumerate(rows):
        following = row.token_ids[1 : length + 1]
        targets[i, : len(following)] = following
        weight[i, : len(following)] = row.learn[1 : length + 1]
    return targets, weight


def image_slots(rows: Sequence[EncodedConversation], wanted: int | None) -> int:
    """Number N of picture slots of a batch: `wanted`, or what the fullest row needs.

    Raises:
        PromptError: a row has more pictures than `wanted`.
    """
    most = max((len(row.images) for row in rows), default=0)
    if wanted is not None and most > wanted:
        raise PromptError(
            f"A prompt has {most} pictures, more than the {wanted} slot(s) of the batch; raise "
            "max_images_per_prompt (images_per_record of a data set) or leave pictures out."
        )
    return most if wanted is None else wanted


def cut(row: EncodedConversation, length: int) -> EncodedConversation:
    """The first `length` tokens of a training example.

    Raises:
        PromptError: a picture, or the whole answer, would be lost by it.
    """
    if len(row.token_ids) <= length:
        return row
    if len(row.image_positions) and row.image_positions[-1] >= length:
        raise PromptError(
            f"The pictures need {int(row.image_positions[-1]) + 1} positions but "
            f"sequence_length is {length}; a picture is never cut, raise sequence_length."
        )
    if not row.learn[: length + 1].any():  # the last target needs no input
        raise PromptError(
            f"The answer begins after position {length}, so nothing would be learned; raise "
            "sequence_length or shorten the question."
        )
    return EncodedConversation(
        row.token_ids[:length], row.learn[:length], row.image_positions, row.images
    )
