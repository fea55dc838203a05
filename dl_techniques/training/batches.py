"""Where a stage's batches come from: functions of a place, so that a killed run can go on there."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock
from time import monotonic
from typing import Any, Protocol, runtime_checkable

import keras

from dl_techniques.errors import TrainingError

WORKER_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
"""Workers draw and tokenize; the accelerator, and more than one thread, are not theirs."""


@runtime_checkable
class Batches(Protocol):
    """Batches by place.

    `batch` must be a function of its arguments (and of a seed that the object was made with): no
    generator that runs on from call to call. For random numbers start one anew in each call, as
    `np.random.default_rng((seed, epoch, index))`.
    """

    def __len__(self) -> int:
        """Batches of an epoch."""
        ...

    def batch(self, epoch: int, index: int) -> Any:
        """A batch as `fit` takes it: `x`, `(x, y)` or `(x, y, sample_weight)`.

        Args:
            epoch: counted from 0, without an end.
            index: 0 <= index < len(self).
        """
        ...


class Repeated:
    """Another object's batches, each given several times: new, then among the last ones again.

    For accelerators that learn faster than batches are drawn. Which batch comes again is a
    function of the place, so what a resumed run no longer has is drawn once more. It stands outside
    of `DrawnAhead`, whose workers would each keep batches of their own.

    Args:
        batches: the batches.
        passes: how often each is given on average.
        kept: how many of the last ones wait to be given again.

    Example:
        >>> class Numbers:
        ...     def __len__(self): return 4
        ...     def batch(self, epoch, index): return 4 * epoch + index
        >>> twice = Repeated(Numbers(), passes=2)
        >>> [twice.batch(0, index) for index in range(4)]
        [0, 0, 1, 0]
    """

    def __init__(self, batches: Batches, passes: int = 2, kept: int = 48) -> None:
        self.batches, self.passes, self.kept = batches, passes, kept
        self._known: dict[int, Any] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self.batches)

    def source(self, number: int) -> int:
        """Which batch is given in a place; both are counted through all epochs."""
        new, again = divmod(number, self.passes)
        if not again:
            return new
        known = min(self.kept, new + 1)
        return new + 1 - known + (new * 31 + again * 7) % known

    def batch(self, epoch: int, index: int) -> Any:
        """The batch of a place."""
        number = epoch * len(self) + index
        source = self.source(number)
        with self._lock:
            if source not in self._known:
                self._known[source] = self.batches.batch(*divmod(source, len(self)))
                oldest = number // self.passes - self.kept
                self._known = {n: made for n, made in self._known.items() if n > oldest}
            return self._known[source]


class Segment(keras.utils.PyDataset):
    """What one epoch of `fit` sees: so many batches from a step on.

    Keras looks at the first two batches for their shapes before the first epoch; it gets those of
    the first two places, whatever step a run begins with.

    Args:
        batches: the batches.
        length: how many.
        seen_first: where those come from that Keras looks at; the same batches, not made ahead.
    """

    def __init__(self, batches: Batches, length: int, seen_first: Batches) -> None:
        super().__init__()
        self.batches, self.length, self.seen_first = batches, length, seen_first
        self.first: int | None = None
        """Step of the first batch, counted through all epochs. It is set from outside before each
        segment, for Keras calls `on_epoch_end` before the first one as well."""
        self.waited = 0.0
        """Seconds that batches took to come; set to 0 from outside."""

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if self.first is None:
            return self.seen_first.batch(*divmod(index, len(self.seen_first)))
        start = monotonic()
        batch = self.batches.batch(*divmod(self.first + index, len(self.batches)))
        self.waited += monotonic() - start
        return batch


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
