"""Records as a training takes them: with their weights, in rows of few lengths, counted."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np

from dl_techniques.data.conversations import Conversation
from dl_techniques.data.dataset import Batch, ConversationDataset
from dl_techniques.data.records.training_files import TrainingRecords
from dl_techniques.errors import PromptError

SAMPLE = 1000
"""Records whose lengths are looked at."""
STEP = 32
"""Rows have a multiple of so many tokens: each length is a compilation on JAX."""


class Rows:
    """Records by their places in an epoch.

    Args:
        records: all records.
        places: int[M].
    """

    def __init__(self, records: Sequence[Conversation], places: np.ndarray) -> None:
        self.records, self.places = records, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Conversation:
        return self.records[int(self.places[index])]


class CountedBatches:
    """A dataset's batches by place, whose tokens are counted as they are made.

    Args:
        dataset: of conversations.
    """

    def __init__(self, dataset: ConversationDataset) -> None:
        self.dataset = dataset
        self._tokens: dict[int, int] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.dataset)

    def batch(self, epoch: int, index: int) -> Batch:
        """The batch of a place."""
        made = self.dataset.batch(epoch, index)
        with self._lock:
            self._tokens[epoch * len(self) + index] = int(made[0]["padding_mask"].sum())
        return made

    def take_count(self, steps: range) -> int:
        """Tokens of batches, padding left out; what came before them is forgotten."""
        with self._lock:
            counted = sum(self._tokens.get(step, 0) for step in steps)
            self._tokens = {n: c for n, c in self._tokens.items() if n >= steps.stop}
        return counted


def token_counts(records: Sequence[Conversation], preprocessor: Any) -> np.ndarray:
    """int[N], tokens of each record with its pictures' places; pictures are not read.

    Args:
        records: checked.
        preprocessor: of the model.

    Raises:
        PromptError: a record that cannot be encoded.
    """
    blank = np.zeros((1, 1, 3), "uint8")
    plain = [{**record, "images": [blank] * len(record["images"])} for record in records]
    rows = [preprocessor.encode([one], learn=True, names=["record"])[0] for one in plain]
    return np.array([len(row.token_ids) for row in rows])


def sample_of(records: Sequence[Conversation], seed: int = 0) -> list[Conversation]:
    """At most `SAMPLE` of the records, by chance."""
    if len(records) <= SAMPLE:
        return list(records)
    places = np.random.default_rng(seed).choice(len(records), SAMPLE, replace=False)
    return [records[int(place)] for place in places]


def lengths_for(counts: np.ndarray, longest: int) -> list[int]:
    """Two lengths of rows: half of the records fit into the first one, all of them into the second.

    Args:
        counts: tokens of records.
        longest: that a row may have.

    Example:
        >>> lengths_for(np.array([20, 30, 40, 300]), 512)
        [64, 320]
    """
    wanted = (float(np.median(counts)), float(counts.max()))
    return sorted({min(longest, STEP * -(-int(np.ceil(n)) // STEP)) for n in wanted})


def make_batches(
    records: TrainingRecords,
    preprocessor: Any,
    batch_size: int,
    accumulate: int = 1,
    seed: int = 0,
    max_length: int | None = None,
) -> tuple[CountedBatches, np.ndarray]:
    """Batches of an epoch, and token counts of a sample of the records.

    Args:
        records: of all sources.
        preprocessor: of the model; its sequence length is the longest row.
        batch_size: rows.
        accumulate: batches of an update.
        seed: of the order.
        max_length: tokens that a row may have; None for the preprocessor's.

    Raises:
        PromptError: a record that is longer than a row.
    """
    longest = min(max_length or preprocessor.sequence_length, preprocessor.sequence_length)
    counts = token_counts(sample_of(records.records, seed), preprocessor)
    if counts.max() - 1 > longest:
        raise PromptError(
            f"a record has {counts.max()} tokens, more than the {longest} of a row: raise "
            "max_length, where the preset allows it, or shorten the record"
        )
    dataset = ConversationDataset(
        Rows(records.records, records.rows(batch_size * accumulate, seed)),
        preprocessor,
        batch_size,
        seed=seed,
        length_buckets=lengths_for(counts, longest),
        workers=0,
        accumulate=accumulate,
    )
    return CountedBatches(dataset), counts
