"""Batches that worker processes draw ahead, for accelerators that are faster than one drawing core.

Every batch is a pure function of its epoch and index, so any number of workers gives the same ones.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.pool import AsyncResult
from typing import Any, Protocol

import keras

# the workers draw and tokenize; the accelerator, and more than one thread, are not theirs
WORKER_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
IMPORTED_ONCE = "tools.demo_model.finetune"


class Batches(Protocol):
    """Batches by epoch and index; can be pickled."""

    def __len__(self) -> int: ...

    def batch(self, epoch: int, index: int) -> Any: ...


class DrawnAhead(keras.utils.PyDataset):
    """Another dataset's batches, drawn ahead by processes.

    Args:
        batches: pickled once into every worker.
        processes: how many workers.
        epoch: the first epoch's number, less one: Keras ends one epoch extra when `fit` starts.
        ahead: most batches asked for and not yet taken.
        passes: how often each batch is given: once new, then among the last `kept` ones again.
        kept: batches that wait to be given again.
    """

    def __init__(
        self,
        batches: Batches,
        processes: int,
        epoch: int = 0,
        ahead: int = 256,
        passes: int = 1,
        kept: int = 48,
    ) -> None:
        super().__init__()
        self.length, self.epoch = len(batches), epoch
        self.ahead, self.passes, self.kept = ahead, passes, kept
        self.pending: dict[int, AsyncResult[Any]] = {}
        self.known: list[Any] = []
        with environment(WORKER_ENVIRONMENT):
            # not forked from this process, where the frameworks' threads may hold locks
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([IMPORTED_ONCE])
            self.pool = context.Pool(processes, _start_worker, (batches,))

    def __len__(self) -> int:
        return self.length

    def on_epoch_end(self) -> None:
        """Goes on to the next epoch's batches, some of which may be there already."""
        self.epoch += 1

    def __getitem__(self, index: int) -> Any:
        number, again = divmod(self.epoch * self.length + index, self.passes)
        if again and self.known:
            return self.known[(number * 31 + again * 7) % len(self.known)]
        batch = self.new(number)
        self.known = [*self.known, batch][-self.kept :] if self.passes > 1 else []
        return batch

    def new(self, number: int) -> Any:
        """The batch of a number counted through all epochs, and the next ones asked for."""
        wanted = range(number, number + self.ahead)
        self.pending = {n: result for n, result in self.pending.items() if n in wanted}
        for n in wanted:
            if n not in self.pending:
                self.pending[n] = self.pool.apply_async(_draw, divmod(n, self.length))
        return self.pending.pop(number).get()

    def close(self) -> None:
        """Ends the workers."""
        self.pool.terminate()
        self.pool.join()


@dataclass(frozen=True)
class Drawing:
    """Who draws a stage's batches.

    Attributes:
        processes: that draw ahead; 0 to draw in the training process.
        passes: how often each batch is given, see `DrawnAhead`.
    """

    processes: int = 0
    passes: int = 1

    @contextmanager
    def drawn(self, batches: Any, epoch: int = 0) -> Iterator[Any]:
        """The batches, or the same drawn ahead while this is open."""
        if not self.processes:
            yield batches
            return
        ahead = DrawnAhead(batches, self.processes, epoch, passes=self.passes)
        try:
            yield ahead
        finally:
            ahead.close()


IN_PLACE = Drawing()


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Sets variables of the environment while this is open."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_worker: dict[str, Batches] = {}


def _start_worker(batches: Batches) -> None:
    _worker["batches"] = batches


def _draw(epoch: int, index: int) -> Any:
    return _worker["batches"].batch(epoch, index)
