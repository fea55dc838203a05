"""Batches made ahead, by threads or by processes of their own.

Every batch is a function of its place, so any number of workers gives the same ones.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from typing import Any

from dl_techniques.errors import TrainingError
from dl_techniques.training.batches import Batches

WORKER_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
"""Workers draw and tokenize; the accelerator, and more than one thread, are not theirs."""


class DrawnAhead:
    """Another object's batches, made before they are asked for.

    Args:
        batches: the batches; for processes they are pickled once into every one.
        threads: that make them in this process.
        processes: that make them instead, where an accelerator is faster than one core draws.
        ahead: most batches made and not yet taken.
        preload: modules that the processes share, imported once.

    Raises:
        TrainingError: fewer than one worker.
    """

    def __init__(
        self,
        batches: Batches,
        threads: int = 1,
        processes: int = 0,
        ahead: int | None = None,
        preload: Sequence[str] = (),
    ) -> None:
        if threads < 1 or processes < 0:
            raise TrainingError(
                f"threads={threads}, processes={processes}: expected at least one thread, or so "
                "many processes instead"
            )
        self.batches, self.length = batches, len(batches)
        self.ahead = ahead or (16 * processes if processes else 2 * threads)
        self._pending: dict[int, Callable[[], Any]] = {}
        self._lock = Lock()
        self.failure: BaseException | None = None
        """What making a batch ended with: TensorFlow passes it on as an error of its own."""
        if processes:
            self._pool: Any = _processes(batches, processes, preload)
            self._submit = self._to_process
        else:
            self._pool = ThreadPoolExecutor(threads, "batches")
            self._submit = self._to_thread

    def __len__(self) -> int:
        return self.length

    def batch(self, epoch: int, index: int) -> Any:
        """The batch of a place; those that follow it are asked for."""
        number = epoch * self.length + index
        wanted = range(number, number + self.ahead + 1)
        with self._lock:
            self._pending = {n: made for n, made in self._pending.items() if n in wanted}
            for n in wanted:
                if n not in self._pending:
                    self._pending[n] = self._submit(*divmod(n, self.length))
            made = self._pending.pop(number)
        try:
            return made()
        except BaseException as error:
            self.failure = error
            raise

    def _to_thread(self, epoch: int, index: int) -> Callable[[], Any]:
        result: Callable[[], Any] = self._pool.submit(self.batches.batch, epoch, index).result
        return result

    def _to_process(self, epoch: int, index: int) -> Callable[[], Any]:
        result: Callable[[], Any] = self._pool.apply_async(_draw, (epoch, index)).get
        return result

    def close(self) -> None:
        """Ends the workers."""
        if isinstance(self._pool, ThreadPoolExecutor):
            self._pool.shutdown(wait=True, cancel_futures=True)
        else:
            self._pool.terminate()
            self._pool.join()


@contextmanager
def drawn_ahead(batches: Batches, **options: Any) -> Iterator[DrawnAhead]:
    """The batches made ahead while this is open.

    Args:
        batches: the batches.
        **options: of `DrawnAhead`.

    Example:
        >>> class Numbers:
        ...     def __len__(self): return 3
        ...     def batch(self, epoch, index): return 10 * epoch + index
        >>> with drawn_ahead(Numbers(), threads=2) as ahead:
        ...     [ahead.batch(1, index) for index in range(3)]
        [10, 11, 12]
    """
    ahead = DrawnAhead(batches, **options)
    try:
        yield ahead
    finally:
        ahead.close()


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


def _processes(batches: Batches, count: int, preload: Sequence[str]) -> Any:
    with environment(WORKER_ENVIRONMENT):
        # not forked from this process, where the frameworks' threads may hold locks
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(preload))
        return context.Pool(count, _start_worker, (batches,))


_worker: dict[str, Batches] = {}


def _start_worker(batches: Batches) -> None:
    _worker["batches"] = batches


def _draw(epoch: int, index: int) -> Any:
    return _worker["batches"].batch(epoch, index)
