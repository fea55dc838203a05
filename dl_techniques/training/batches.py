"""Where a stage's batches come from: functions of a place, so that a killed run can go on there."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import keras


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
    function of the place, so what a resumed run no longer has is drawn once more.

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

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if self.first is None:
            return self.seen_first.batch(*divmod(index, len(self.seen_first)))
        return self.batches.batch(*divmod(self.first + index, len(self.batches)))
