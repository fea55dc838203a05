"""What a block fuses or folds, declared; both directions are computed here.

A `Fold` says which parts of a training form end up in which layer of the inference form, and
always as one linear map (kernel and bias). A block lists its folds; `SwitchableLayer` does the
rest. All of it is exact, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from dl_techniques.layers.fusion import (
    Array,
    Linear,
    as_float64,
    batch_norm_affine,
    centre_pad,
    fuse_identity_norm,
    fuse_norm,
    identity_kernel,
    relative_change,
    scale_outputs,
)


class Fold:
    """One linear map of the inference form, and the training form's parts that it replaces.

    Args of all: `into`, the layer that holds the map, as names joined by "/" below the block.
    """

    into: str

    def parts(self, inference: bool) -> tuple[str, ...]:
        """Names of the parts that only this form has."""
        raise NotImplementedError

    def linear(self, block: Any) -> Linear:
        """The map that the training form computes at inference."""
        raise NotImplementedError

    def neutral(self, block: Any) -> None:
        """Prepares freshly created parts so that `absorb` can reach any map."""

    def absorb(self, block: Any, wanted: Linear) -> None:
        """Changes the training form so that it computes `wanted`."""
        raise NotImplementedError

    def changed(self, block: Any) -> tuple[Any, ...]:
        """Variables of both forms that folding changes."""
        return ()

    def target(self, block: Any) -> Any:
        """The layer whose kernel and bias are the map."""
        for name in self.into.split("/"):
            block = getattr(block, name)
        return block


@dataclass(frozen=True)
class ScaleIntoDense(Fold):
    """A layer scale behind a dense layer that both forms have.

    Args:
        scale: name of the layer scale.
        into: the dense layer before it.
    """

    scale: str
    into: str

    def parts(self, inference: bool) -> tuple[str, ...]:
        """The scale, in training form."""
        return () if inference else (self.scale,)

    def linear(self, block: Any) -> Linear:
        """The dense layer with its outputs multiplied by gamma."""
        return scaled_dense(self.target(block), as_float64(getattr(block, self.scale).gamma))

    def neutral(self, block: Any) -> None:
        """Gamma 1."""
        _set_to_one(getattr(block, self.scale).gamma)

    def absorb(self, block: Any, wanted: Linear) -> None:
        """Divides the dense layer by gamma."""
        gamma = as_float64(getattr(block, self.scale).gamma)
        _set(self.target(block).kernel, wanted.kernel / gamma)
        _set(self.target(block).bias, wanted.bias / gamma)

    def changed(self, block: Any) -> tuple[Any, ...]:
        """Kernel and bias of the dense layer."""
        return (self.target(block).kernel, self.target(block).bias)


@dataclass(frozen=True)
class NormIntoDense(Fold):
    """A BatchNorm before a dense layer, which has a bias in the inference form.

    Args:
        norm: name of the BatchNorm.
        into: the dense layer behind it; its first name is a part that every form creates anew.
        add_bias: gives the dense layer of the training form a bias, for one that was trained in
            the inference form to what no shift of the norm can hold.
    """

    norm: str
    into: str
    add_bias: Callable[[], None]

    def parts(self, inference: bool) -> tuple[str, ...]:
        """The norm in training form; the layer that gains or loses its bias in both."""
        changed = self.into.split("/")[0]
        return (changed,) if inference else (self.norm, changed)

    def linear(self, block: Any) -> Linear:
        """The dense layer of what the norm gives."""
        dense = self.target(block)
        scale, shift = batch_norm_affine(getattr(block, self.norm))
        kernel = as_float64(dense.kernel)
        bias = as_float64(dense.bias) if dense.use_bias else 0.0
        return Linear(kernel * scale[:, None], shift @ kernel + bias)

    def absorb(self, block: Any, wanted: Linear) -> None:
        """Solves `shift @ W = bias` for the norm's shift, `W * scale = kernel` for W.

        What the shift cannot hold becomes a bias of the dense layer.
        """
        scale, shift = batch_norm_affine(getattr(block, self.norm))
        weights = wanted.kernel / scale[:, None]
        if not self.target(block).use_bias:
            refitted = np.linalg.lstsq(weights.T, wanted.bias, rcond=None)[0]
            if relative_change(wanted.bias, refitted @ weights) > 1e-4:
                self.add_bias()
            else:
                add_to(getattr(block, self.norm).beta, refitted - shift)
        dense = self.target(block)
        _set(dense.kernel, weights)
        if dense.use_bias:
            _set(dense.bias, wanted.bias - shift @ weights)


@dataclass(frozen=True)
class NormIntoConv(Fold):
    """A convolution without bias and the BatchNorm behind it as one convolution.

    Args:
        into: name of the convolution with bias, in inference form only.
        conv: name of the convolution without.
        norm: name of the BatchNorm.
        depthwise: one group per input channel.
    """

    into: str
    conv: str
    norm: str
    depthwise: bool

    def parts(self, inference: bool) -> tuple[str, ...]:
        """The one convolution, or both parts."""
        return (self.into,) if inference else (self.conv, self.norm)

    def linear(self, block: Any) -> Linear:
        """Both as one convolution."""
        kernel = as_float64(getattr(block, self.conv).kernel)
        return fuse_norm(kernel, getattr(block, self.norm), self.depthwise)

    def absorb(self, block: Any, wanted: Linear) -> None:
        """Puts the difference to `wanted` into the convolution's kernel and the norm's beta."""
        change = wanted.minus(self.linear(block))
        add_before_norm(
            getattr(block, self.conv), getattr(block, self.norm), change, self.depthwise
        )


@dataclass(frozen=True)
class BranchesIntoConv(Fold):
    """Parallel branches as one convolution: `[x +] [gamma *] (sum of branches - sum of minus)`.

    A branch is a convolution, a BatchNorm, or a block with `fused()` and `add()`.

    Args:
        into: name of the convolution, in inference form only.
        size: side of its kernel, odd; smaller branches are padded.
        branches: names.
        learner: the branch that takes up what the inference form learned; None if none can.
        depthwise: one group per input channel.
        minus: names of branches that are subtracted.
        scale: name of a layer scale behind the sum, or None.
        residual: whether the input is added at the end.
    """

    into: str
    size: int
    branches: tuple[str, ...]
    learner: str | None
    depthwise: bool = True
    minus: tuple[str, ...] = ()
    scale: str | None = None
    residual: bool = False

    def parts(self, inference: bool) -> tuple[str, ...]:
        """The convolution, or everything that it replaces."""
        scale = () if self.scale is None else (self.scale,)
        return (self.into,) if inference else (*self.branches, *self.minus, *scale)

    def linear(self, block: Any) -> Linear:
        """All branches as one convolution."""
        first, *others = (self._linear(getattr(block, name)) for name in self.branches)
        total = sum(others, first)
        for name in self.minus:
            total = total.minus(self._linear(getattr(block, name)))
        kernel, bias = total
        if self.scale is not None:
            gamma = as_float64(getattr(block, self.scale).gamma)
            kernel, bias = kernel * gamma[:, None], bias * gamma
        if self.residual:
            kernel = kernel + identity_kernel(self.size, kernel.shape[2], self.depthwise)
        return Linear(kernel, bias)

    def neutral(self, block: Any) -> None:
        """Gamma 1: at its usual start the branches would have to be 100 000 times larger."""
        if self.scale is not None:
            _set_to_one(getattr(block, self.scale).gamma)

    def absorb(self, block: Any, wanted: Linear) -> None:
        """Puts the difference to `wanted` into the learner."""
        self.add(block, wanted.minus(self.linear(block)))

    def add(self, block: Any, change: Linear) -> None:
        """Adds a map to what the training form computes at inference."""
        if self.scale is not None:
            gamma = as_float64(getattr(block, self.scale).gamma)
            change = Linear(change.kernel / gamma[:, None], change.bias / gamma)
        if self.learner is None:
            return
        branch = getattr(block, self.learner)
        if isinstance(branch, keras.layers.BatchNormalization):
            _add_to_norm(branch, change)
        elif _is_convolution(branch):
            add_to(branch.kernel, change.kernel)
            add_to(branch.bias, change.bias)
        else:
            branch.add(change)

    def _linear(self, branch: Any) -> Linear:
        if isinstance(branch, keras.layers.BatchNormalization):
            return fuse_identity_norm(branch, self.size, self.depthwise)
        if _is_convolution(branch):
            return Linear(as_float64(branch.kernel), as_float64(branch.bias))
        linear = branch.fused()
        return Linear(centre_pad(linear.kernel, self.size), linear.bias)


def scaled_dense(dense: Any, scale: Array) -> Linear:
    """A dense layer whose outputs are multiplied by `scale`."""
    return Linear(as_float64(dense.kernel) * scale, as_float64(dense.bias) * scale)


def add_before_norm(conv: Any, norm: Any, change: Linear, depthwise: bool) -> None:
    """Adds a map to what a convolution and the BatchNorm behind it compute at inference."""
    scale, _ = batch_norm_affine(norm)
    add_to(conv.kernel, scale_outputs(change.kernel, 1.0 / scale, depthwise))
    add_to(norm.beta, change.bias)


def add_to(variable: Any, change: Array) -> None:
    """Adds an array to a variable, in float64."""
    _set(variable, as_float64(variable) + change.reshape(variable.shape))


def _set(variable: Any, value: Array) -> None:
    variable.assign(value.astype(variable.dtype))


def _set_to_one(gamma: Any) -> None:
    gamma.assign(keras.ops.ones(gamma.shape, gamma.dtype))


def _is_convolution(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)


def _add_to_norm(norm: Any, difference: Linear) -> None:
    """Adds a purely per-channel difference to a lone BatchNorm."""
    size, _, channels, outputs = difference.kernel.shape
    centre = difference.kernel[size // 2, size // 2]
    centre = centre[:, 0] if outputs == 1 else np.diagonal(centre)[:channels]
    scale, _ = batch_norm_affine(norm)
    gain = (scale + centre) / scale
    mean = as_float64(norm.moving_mean)
    add_to(norm.beta, difference.bias + mean * centre)
    norm.gamma.assign(as_float64(norm.gamma) * gain)
