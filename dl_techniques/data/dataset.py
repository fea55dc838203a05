"""Feed `fit` and `evaluate` with conversations, batch by batch, from worker threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from threading import Lock
from typing import Any, Protocol

import keras
import numpy as np

from dl_techniques.compat.keras_models import takes_shapes_of_first_batches
from dl_techniques.errors import PromptError

Batch = tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]


class Records(Protocol):
    """Anything with a length and an index: a list, or an object that makes records on demand."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class ConversationDataset(keras.utils.PyDataset):
    """Batches `(x, y, sample_weight)` of constant shape for training FastVLM.

    Each epoch has its own order, a function of `(seed, epoch)` alone, so that a resumed run
    sees what an uninterrupted one would have. A last batch that is short is filled with copies
    at weight zero. Batches are prepared ahead in threads of this object: Keras' own workers
    carry batches over from one epoch to the next. Any number of threads gives the same batches.

    The loss of a batch is the mean over its target tokens, however long the rows are padded: Keras
    divides by all positions, and the weights make up for it.

    Args:
        records: Indexable of conversation dicts, prompt dicts with `responses`, see
            `FastVLMCausalLMPreprocessor`.
        preprocessor: `FastVLMCausalLMPreprocessor`.
        batch_size: Rows of a batch.
        shuffle: Whether to change the order each epoch. Pass `shuffle=False` to `fit`: Keras
            would otherwise shuffle the batches once more.
        seed: Seed of the order.
        epoch: Epochs that earlier runs have completed, when a run is resumed.
        length_buckets: Row lengths to choose from, e.g. `(64, 128)`: a batch gets the smallest
            one that fits. None: always the preprocessor's `sequence_length`.
        images_per_record: Picture slots of each row. None: the preprocessor's
            `max_images_per_prompt`, or what the fullest row of the batch needs.
        drop_remainder: Leave a short last batch out instead of filling it.
        workers: Threads that prepare batches; 0 to prepare each when it is asked for.
        max_queue_size: Most batches prepared ahead.
        max_answer_tokens: Most trained tokens of a record, P: its answers and the tokens that
            end them. If set, batches hold `answer_positions` int32[B, P], y int32[B, P] and its
            weights, and the model computes logits at these positions alone: the same loss in less
            memory and time, the more so the larger the vocabulary. None: at all L positions.
        record_weights: float[N], times which a record's weights are taken; None for 1.
        accumulate: Batches whose gradients make an update, as the optimizer's
            `gradient_accumulation_steps`: the mean is then over the target tokens of all of them.

    Raises:
        PromptError: a record that cannot be encoded, or has more than `max_answer_tokens`, named
            by its index.

    Example:
        >>> dataset = ConversationDataset(records, preprocessor, batch_size=8)  # doctest: +SKIP
        >>> x, y, sample_weight = dataset[0]  # doctest: +SKIP
    """

    def __init__(
        self,
        records: Records,
        preprocessor: keras.layers.Layer,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int = 0,
        epoch: int = 0,
        length_buckets: Sequence[int] | None = None,
        images_per_record: int | None = None,
        drop_remainder: bool = False,
        workers: int = 1,
        max_queue_size: int = 10,
        max_answer_tokens: int | None = None,
        record_weights: np.ndarray | None = None,
        accumulate: int = 1,
    ) -> None:
        super().__init__()
        if batch_size < 1 or workers < 0 or max_queue_size < 1:
            raise ValueError(
                f"batch_size={batch_size} and max_queue_size={max_queue_size} must be at least 1, "
                f"workers={workers} at least 0."
            )
        if max_answer_tokens is not None and max_answer_tokens < 1:
            raise ValueError(f"max_answer_tokens={max_answer_tokens} must be at least 1, or None.")
        if len(records) == 0 or (drop_remainder and len(records) < batch_size):
            raise PromptError(f"{len(records)} record(s) make no batch of {batch_size}.")
        self.records = records
        self.preprocessor = preprocessor
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = epoch
        self.buckets = sorted({*(length_buckets or ()), preprocessor.sequence_length})
        self.images_per_record = images_per_record
        self.max_answer_tokens = max_answer_tokens
        self.record_weights = record_weights
        self.accumulate = accumulate
        self.drop_remainder = drop_remainder
        if self.buckets[-1] > preprocessor.sequence_length:
            raise ValueError(
                f"length_buckets={length_buckets} exceed the preprocessor's sequence_length="
                f"{preprocessor.sequence_length}."
            )
        if accumulate < 1 or len(self) % accumulate:
            raise ValueError(
                f"accumulate={accumulate} must be at least 1 and divide the {len(self)} batches of "
                "an epoch, or an update would gather batches of two epochs; change batch_size, or "
                "leave records out."
            )
        self._order = self._order_of(self.epoch)
        self._threads = workers
        self._ahead = max_queue_size
        self._start_threads()

    def _start_threads(self) -> None:
        workers = self._threads
        self._pool = ThreadPoolExecutor(workers, "conversations") if workers else None
        self._pending: dict[int, Future[Batch]] = {}
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        """What the batches are made from; threads and batches made ahead stay behind."""
        left = ("_pool", "_pending", "_lock")
        return {name: value for name, value in self.__dict__.items() if name not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_threads()

    def __len__(self) -> int:
        whole, rest = divmod(len(self.records), self.batch_size)
        return whole if self.drop_remainder or not rest else whole + 1

    def __getitem__(self, index: int) -> Batch:
        if not 0 <= index < len(self):  # iteration over the object ends on this error
            raise IndexError(f"Batch {index} of {len(self)}.")
        if self._pool is None:
            return self._prepare(index, self._order)
        with self._lock:
            future = self._look_ahead(index, self._pool)
        return future.result()

    def batch(self, epoch: int, index: int) -> Batch:
        """Batch of any epoch, prepared now: what a `dl_techniques.training.Stage` asks for.

        Args:
            epoch: 0 for the first.
            index: of the batch in it.
        """
        return self._prepare(index, self._order_of(epoch))

    def _look_ahead(self, index: int, pool: ThreadPoolExecutor) -> Future[Batch]:
        """Put the batches from `index` on into the threads' queue; drop those behind it."""
        wanted = range(index, min(index + self._ahead + 1, len(self)))
        for other in [i for i in self._pending if i not in wanted]:
            self._pending.pop(other).cancel()
        for i in wanted:
            if i not in self._pending:
                self._pending[i] = pool.submit(self._prepare, i, self._order)
        return self._pending.pop(index)

    def _prepare(self, index: int, order: np.ndarray) -> Batch:
        """Batch `index` of an epoch in the given order."""
        rows, names, encoded = self._encoded(index, order)
        missing = self.batch_size - len(encoded)
        encoded += [encoded[0]] * missing
        x, y, weight = self.preprocessor.pack_for_training(
            encoded, self._length(encoded, index), self.images_per_record
        )
        weight[self.batch_size - missing :] = 0.0
        weight = self._per_token(weight, index, order)
        if self.max_answer_tokens is not None:
            self._check_answers(weight, names)
            positions, y, weight = answers_alone(y, weight, self.max_answer_tokens)
            x["answer_positions"] = positions
        if self.record_weights is not None:
            weight[: len(rows)] *= self.record_weights[rows][:, None]
        return x, y, weight

    def _encoded(self, index: int, order: np.ndarray) -> tuple[np.ndarray, list[str], list[Any]]:
        """The records of a batch: their places, their names, and what is made of them."""
        rows = order[index * self.batch_size : (index + 1) * self.batch_size]
        names = [f"record {row}" for row in rows]
        records = [self.records[int(row)] for row in rows]
        return rows, names, self.preprocessor.encode(records, learn=True, names=names)

    def _per_token(self, weight: np.ndarray, index: int, order: np.ndarray) -> np.ndarray:
        """Weights by which the mean over all positions is that over the update's target tokens."""
        targets = float((weight > 0).sum())
        first = index - index % self.accumulate
        for other in range(first, first + self.accumulate):
            if other != index:
                _, _, encoded = self._encoded(other, order)
                targets += sum(int(row.learn[1 : self.buckets[-1] + 1].sum()) for row in encoded)
        return weight * np.float32(self.accumulate * weight.size / targets)

    def _check_answers(self, weight: np.ndarray, names: Sequence[str]) -> None:
        """Refuses rows with more trained tokens than fit."""
        for name, count in zip(names, (weight > 0).sum(1), strict=False):
            if count > self.max_answer_tokens:
                raise PromptError(
                    f"{name} has {count} answer tokens, more than max_answer_tokens="
                    f"{self.max_answer_tokens}; raise it or shorten the answer."
                )

    def on_epoch_end(self) -> None:
        """Go to the next epoch's order. Keras also calls this once when `fit` begins."""
        with self._lock:
            self.epoch += 1
            self._order = self._order_of(self.epoch)
            for future in self._pending.values():
                future.cancel()
            self._pending.clear()

    def _order_of(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self.records))
        return _permutation(self.seed, epoch, len(self.records))

    def _length(self, encoded: Sequence[Any], index: int) -> int:
        """The smallest bucket that holds every row; its last token is a target only.

        On TensorFlow, Keras takes the shapes of the first two batches for those of all, unless
        they differ: there the first batch is one position longer than any bucket.
        """
        if index == 0 and len(self.buckets) > 1 and takes_shapes_of_first_batches():
            return self.buckets[-1] + 1
        longest = max(len(row.token_ids) for row in encoded) - 1
        return next((b for b in self.buckets if b >= longest), self.buckets[-1])


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of an epoch; kept, for batches may be asked for one by one."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def answers_alone(
    targets: np.ndarray, weight: np.ndarray, slots: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The trained positions of a batch alone.

    Args:
        targets: int32[B, L], the next token of each position.
        weight: float32[B, L], in no row above zero at more than P positions.
        slots: P.

    Returns:
        Positions int32[B, P] in rising order, their targets int32[B, P], and their weights
        float32[B, P], times P / L: the mean over P is then what the mean over L was. Places that
        are left over point to position 0, at weight zero.

    Example:
        >>> y, weight = np.array([[5, 6, 7, 8]]), np.array([[0, 1, 0, 1]], "float32")
        >>> [array.tolist() for array in answers_alone(y, weight, 3)]
        [[[1, 3, 0]], [[6, 8, 5]], [[0.75, 0.75, 0.0]]]
    """
    order = np.argsort(weight == 0, axis=1, kind="stable")[:, :slots].astype("int32")
    kept = np.take_along_axis(weight, order, 1)
    room = ((0, 0), (0, slots - order.shape[1]))  # where a row has fewer positions than that
    positions, kept = np.pad(np.where(kept > 0, order, 0), room), np.pad(kept, room)
    share = np.float32(slots / weight.shape[1])
    return positions, np.take_along_axis(targets, positions, 1), kept * share
