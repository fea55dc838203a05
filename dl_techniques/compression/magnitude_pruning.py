"""Magnitude pruning while training: the smallest weights become zero and stay zero.

The zeros are those of the *fused* kernels. A block of parallel branches gets one mask for all of
them, chosen by what they fuse to, so that the sum is as sparse as its parts; where a branch is the
identity, its diagonal is left alone. Depthwise kernels are left alone as well: they hold a few
percent of the numbers and each of theirs matters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques.compat.keras_layers import parts_of
from dl_techniques.compat.keras_models import fetch_state
from dl_techniques.compression.pruning_schedule import CubicSchedule
from dl_techniques.errors import CompressionError
from dl_techniques.layers.fusion import Array, as_float64
from dl_techniques.layers.mobile_one_block import MobileOneBlock
from dl_techniques.training.callbacks import StatefulCallback


@dataclasses.dataclass(frozen=True)
class LayerSparsity:
    """How many numbers of one kernel are zero, as it is after fusing.

    Args:
        layer: path of the layer.
        size: numbers in the kernel.
        zeros: how many of them are zero.
    """

    layer: str
    size: int
    zeros: int

    @property
    def sparsity(self) -> float:
        """Part of the numbers that is zero."""
        return self.zeros / self.size


def sparsity_report(model: keras.Model) -> list[LayerSparsity]:
    """The sparsity of every kernel that `MagnitudePruning` prunes.

    Args:
        model: in any form; branches count as what they fuse to.

    Example:
        >>> from dl_techniques import FastVLM
        >>> report = sparsity_report(FastVLM.from_variant("nano"))
        >>> sum(layer.zeros for layer in report)
        0
    """
    found = []
    for kernel in _kernels_of(model):
        values = kernel.fused()
        found.append(LayerSparsity(kernel.path, values.size, int(np.sum(values == 0))))
    return found


class MagnitudePruning(StatefulCallback):
    """Sets the smallest weights of every kernel to zero, more of them as training goes on.

    Zeros that the network already has stay zeros, so a saved network can be trained further, and a
    `Stage` that was killed goes on with them and with the schedule. The
    zeros are in the weights: files and fused networks keep them, and `sparsity_report` counts them.
    What is frozen is left as it is.

    Args:
        schedule: sparsity at each step of `fit`, or the final sparsity (then it rises over the
            first half of the steps of `fit`).
        frequency: steps between two choices of what is zero. Defaults to 50.
        skip: parts of paths; a layer whose path holds one is left alone. Defaults to the
            classifier's, "head".

    Raises:
        CompressionError: a sparsity or frequency that cannot be; no kernel to prune.

    Example:
        model.fit(batches, epochs=5, callbacks=[MagnitudePruning(0.8)])

    Reference: Zhu and Gupta, "To prune, or not to prune", arXiv:1710.01878.
    """

    def __init__(
        self,
        schedule: CubicSchedule | float = 0.5,
        frequency: int = 50,
        skip: Sequence[str] = ("head",),
    ) -> None:
        super().__init__()
        if frequency < 1:
            raise CompressionError(f"frequency is {frequency}; expected 1 or more")
        ready = isinstance(schedule, CubicSchedule)
        self.schedule = schedule if isinstance(schedule, CubicSchedule) else CubicSchedule(schedule)
        self._fits_run = not ready
        self.frequency, self.skip = frequency, tuple(skip)
        self._step, self._batch = 0, -1
        self._kernels: list[_Kernel] = []
        self._masks: list[list[Any]] = []
        self._places: list[keras.Variable] = []

    def build(self, model: keras.Model) -> None:
        """Creates what a `Stage` saves."""
        self._places = [
            keras.Variable(0, dtype="int32", trainable=False, name=f"pruning_{name}")
            for name in ("step", "end")
        ]

    @property
    def variables(self) -> Sequence[keras.Variable]:
        """The step, and where the schedule ends; the zeros are in the weights."""
        return self._places

    def _saved(self) -> list[int]:
        return [int(ops.convert_to_numpy(place.value)) for place in self._places] or [0, 0]

    def on_train_begin(self, logs: Any = None) -> None:
        """Finds the kernels and keeps the zeros that are there."""
        self._find()
        self._step = self._saved()[0]
        if self._fits_run:
            self.schedule = CubicSchedule(self.schedule.final, 0, self._half_of_the_run())

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Notes the step, before a `Stage` saves."""
        for place, value in zip(self._places, (self._step, self.schedule.end_step), strict=False):
            place.assign(value)

    def finish(self, model: keras.Model) -> None:
        """Reaches the last sparsity where a run was killed after its last step."""
        if not self._kernels:
            self.set_model(model)
            self._find()
            self._step, end = self._saved()
            self.schedule = dataclasses.replace(self.schedule, end_step=max(1, end))
            self.on_train_end()

    def _find(self) -> None:
        self._kernels = [
            kernel
            for kernel in _kernels_of(self.model)
            if not any(part in kernel.path.split("/") for part in self.skip) and kernel.trained
        ]
        if not self._kernels:
            raise CompressionError(
                f"{self.model.name} has no convolution or dense layer to prune that is trained"
            )
        self._masks = [kernel.masks(kernel.fused() != 0) for kernel in self._kernels]

    def _half_of_the_run(self) -> int:
        steps = self.params.get("steps")
        if steps is None:
            raise CompressionError(
                "the data does not say how many batches it has; give MagnitudePruning a "
                "CubicSchedule, or fit() steps_per_epoch"
            )
        return max(1, steps * self.params["epochs"] // 2)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Batches are counted from 0 in every epoch."""
        self._batch = -1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Chooses anew at every `frequency`-th step, and applies the masks at all."""
        before, self._step = self._step, self._step + batch - self._batch
        self._batch = batch
        fetch_state(self.model)
        if before // self.frequency < self._step // self.frequency:
            self._choose()
        self._apply()

    def on_train_end(self, logs: Any = None) -> None:
        """Reaches the last sparsity even where no choice fell on the last step."""
        self._choose()
        self._apply()

    def _apply(self) -> None:
        for kernel, masks in zip(self._kernels, self._masks, strict=True):
            kernel.apply(masks)

    def _choose(self) -> None:
        if self._step > self.schedule.begin_step:
            kept = 1.0 - self.schedule(self._step)
            self._masks = [kernel.masks(kernel.largest(kept)) for kernel in self._kernels]


class _Kernel:
    """One kernel as it is after fusing, and the variables that it comes from."""

    def __init__(self, layer: keras.layers.Layer) -> None:
        self.layer = layer
        self.path = str(getattr(layer, "path", layer.name))

    @property
    def trained(self) -> bool:
        """Whether training moves any of its variables."""
        return any(variable.trainable for variable in self._variables())

    def fused(self) -> Array:
        """float64 values: [k, k, in, out] or [in, out]."""
        if isinstance(self.layer, MobileOneBlock):
            return self.layer.fused().kernel
        return as_float64(self.layer.kernel)

    def largest(self, part: float) -> Array:
        """bool like `fused`: this part of the numbers, the largest; zeros never."""
        size = np.abs(self.fused())
        if self._has_identity():
            size = np.where(_diagonal(size.shape), np.inf, size)
        drop = int(round(size.size * (1 - part)))
        if drop == 0:
            return size > 0
        threshold = np.partition(size.ravel(), drop - 1)[drop - 1]
        return size > threshold

    def masks(self, kept: Array) -> list[Any]:
        """The mask of each variable, as a tensor of its dtype; all ones if nothing is kept."""
        kept = kept if kept.any() else np.ones_like(kept)
        middle = kept.shape[0] // 2
        sizes = [v.shape[0] if kept.ndim == 4 else None for v in self._variables()]
        centre = kept[middle, middle][None, None] if kept.ndim == 4 else kept
        masks = [kept if s in (None, kept.shape[0]) else centre for s in sizes]
        pairs = zip(masks, self._variables(), strict=True)
        return [ops.convert_to_tensor(mask.astype("float32"), dtype=v.dtype) for mask, v in pairs]

    def apply(self, masks: list[Any]) -> None:
        """Multiplies each variable by its mask."""
        for variable, mask in zip(self._variables(), masks, strict=True):
            variable.assign(ops.multiply(variable, mask))

    def _variables(self) -> list[Any]:
        layer = self.layer
        if not isinstance(layer, MobileOneBlock):
            return [layer.kernel]
        if layer.inference_form:
            return [layer.fused_conv.kernel]
        names = [name for name in layer.form_parts(False) if name != "identity"]
        return [getattr(layer, name).conv.kernel for name in names]

    def _has_identity(self) -> bool:
        layer = self.layer
        return (
            isinstance(layer, MobileOneBlock)
            and not layer.inference_form
            and "identity" in layer.form_parts(False)
        )


def _diagonal(shape: tuple[int, ...]) -> Array:
    """Where an identity branch adds to a kernel [k, k, in, out]."""
    where = np.zeros(shape, bool)
    where[shape[0] // 2, shape[1] // 2] = np.eye(shape[2], shape[3], dtype=bool)
    return where


def _kernels_of(model: keras.Model) -> Iterator[_Kernel]:
    """All dense kernels of a model, with their paths below it."""
    for kernel in _prunable(model):
        kernel.path = kernel.path.removeprefix(f"{model.name}/")
        yield kernel


def _prunable(layer: keras.layers.Layer) -> Iterator[_Kernel]:
    """All dense kernels below a layer; blocks of branches as one."""
    if isinstance(layer, MobileOneBlock):
        if not layer.depthwise:
            yield _Kernel(layer)
        return
    is_dense = isinstance(layer, keras.layers.Dense | keras.layers.Conv2D)
    if is_dense and not isinstance(layer, keras.layers.DepthwiseConv2D) and layer.built:
        yield _Kernel(layer)
    for part in parts_of(layer):
        yield from _prunable(part)
