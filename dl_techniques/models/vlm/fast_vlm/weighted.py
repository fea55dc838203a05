"""What `fit` is given beside conversations: weights, and a share of them for validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from dl_techniques.data.dataset import Batch, ConversationDataset
from dl_techniques.errors import PromptError
from dl_techniques.models.vlm.fast_vlm.prompt.records import Record, to_records
from dl_techniques.typing import Tensor


@dataclass(frozen=True)
class Weighted:
    """Conversations and how much each counts.

    Args:
        records: N conversations.
        weights: float[N], none negative; None for 1 each.

    Raises:
        PromptError: weights of another shape or kind.
    """

    records: list[Record]
    weights: Any = None

    def __post_init__(self) -> None:
        if self.weights is None:
            return
        try:
            weights = np.asarray(keras.ops.convert_to_numpy(self.weights), "float32")
        except (TypeError, ValueError) as error:
            raise _wrong_weights(len(self.records), f"{self.weights!r:.100}") from error
        if weights.shape != (len(self.records),):
            raise _wrong_weights(len(self.records), f"an array of shape {weights.shape}")
        wrong = ~(np.isfinite(weights) & (weights >= 0))
        if wrong.any():
            place = int(np.flatnonzero(wrong)[0])
            raise _wrong_weights(len(self.records), f"{weights[place]} at {place}")
        object.__setattr__(self, "weights", weights)

    @classmethod
    def of(cls, data: Any) -> Weighted:
        """Validation data: conversations, or `(conversations, None, weights)` as Keras has it."""
        keras_form = isinstance(data, tuple) and 1 < len(data) < 4 and data[1] is None
        if keras_form:
            return cls(to_records(data[0]), data[2] if len(data) == 3 else None)
        return cls(to_records(data))

    def split(self, share: Any) -> tuple[Weighted, Weighted | None]:
        """All but the last `share`, and these; None for them where nothing is to be split off.

        Raises:
            PromptError: the share is not between 0 and 1, or leaves one of the two empty.
        """
        if not share and not isinstance(share, (str, bytes)):
            return self, None
        total = len(self.records)
        inside = isinstance(share, (int, float, np.number)) and 0 < share < 1
        first = int(total * (1 - share)) if inside else 0  # rounded as Keras does
        if not 0 < first < total:
            raise PromptError(
                f"validation_split must be above 0 and below 1 and leave a conversation on either "
                f"side, got {share!r:.100} for {total} conversation(s)"
            )
        weights = (None, None) if self.weights is None else np.split(self.weights, [first])
        return Weighted(self.records[:first], weights[0]), Weighted(
            self.records[first:], weights[1]
        )


class _Measuring(ConversationDataset):
    """Batches whose loss is the mean over their conversations, of each one's target tokens."""

    def _per_token(self, weight: np.ndarray, index: int, order: np.ndarray) -> np.ndarray:
        targets = np.maximum((weight > 0).sum(1, keepdims=True), 1)
        return weight * (weight.shape[1] / targets).astype("float32")


class _Unfilled(_Measuring):
    """Batches without the copies that fill up a short one, which comes first.

    Keras takes the mean over a batch's rows as the loss, copies included. TensorFlow takes the
    shapes of the first two batches for those of all, unless these two differ.
    """

    def _prepare(self, index: int, order: np.ndarray) -> Batch:
        index = (index - 1) % len(self)
        rows = len(order[index * self.batch_size : (index + 1) * self.batch_size])
        batch: Batch = keras.tree.map_structure(
            lambda array: array[:rows], super()._prepare(index, order)
        )
        return batch


def training_dataset(
    data: Weighted, preprocessor: keras.layers.Layer, batch_size: int, shuffle: bool = False
) -> ConversationDataset:
    """Batches of one shape, for `fit` and `predict`."""
    return ConversationDataset(
        data.records, preprocessor, batch_size, shuffle=shuffle, record_weights=data.weights
    )


def measuring_dataset(
    data: Weighted, preprocessor: keras.layers.Layer, batch_size: int, shuffle: bool = False
) -> ConversationDataset:
    """Batches for `evaluate` and validation, whose losses are means over the conversations.

    Under a distribution all batches keep their size: every device has to get its rows.
    """
    shared = keras.distribution.distribution() is not None
    return (_Measuring if shared else _Unfilled)(
        data.records, preprocessor, batch_size, shuffle=shuffle, record_weights=data.weights
    )


def refuse_arguments(y: Tensor, kwargs: Mapping[str, Any]) -> None:
    """Refuses what only goes with arrays.

    Raises:
        PromptError: `y` or `class_weight`.
    """
    if y is not None:
        raise PromptError("answers belong into `responses` or assistant messages, not into y")
    if kwargs.get("class_weight") is not None:
        raise PromptError(
            "class_weight does not go with conversations, whose targets are tokens; give "
            "sample_weight, one number per conversation"
        )


def _wrong_weights(number: int, got: str) -> PromptError:
    return PromptError(
        f"sample_weight must be {number} finite numbers of at least 0, one per conversation, got "
        f"{got}"
    )
