"""Convolutional feed-forward network: depthwise 7x7, BatchNorm, two dense layers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

from dl_techniques import kernels
from dl_techniques.layers.activations import gelu
from dl_techniques.layers.convolution import DepthwiseConv
from dl_techniques.layers.dense import feed_forward, project, project_with_gelu
from dl_techniques.layers.folding import BranchesIntoConv, Fold
from dl_techniques.layers.initializers import HostTruncatedNormal
from dl_techniques.layers.mobile_one_block import ConvNorm
from dl_techniques.layers.reparameterization import SwitchableLayer
from dl_techniques.typing import Shape

_CONVOLVES: ContextVar[bool] = ContextVar("dense layers of maps as convolutions", default=False)


@contextlib.contextmanager
def dense_as_convolutions() -> Iterator[None]:
    """Inside, the dense layers of a ConvFFN are computed as 1x1 convolutions, which they equal.

    For files whose engines keep maps channels-first: convolutions take them as they are, matrix
    products want every map turned around before and after.
    """
    token = _CONVOLVES.set(True)
    try:
        yield
    finally:
        _CONVOLVES.reset(token)


@keras.saving.register_keras_serializable(package="dl_techniques")
class ConvFFN(SwitchableLayer):
    """Depthwise 7x7 + BatchNorm -> dense -> GELU -> dense: float[B, H, W, C] -> same.

    The published networks keep the BatchNorm after fusing; here the deeper step (folding) puts it
    into the depthwise convolution.

    Args:
        hidden_dim: int. Width between the two dense layers.
        kernel_size: int. Odd. Defaults to 7.
        dropout_rate: float. Dropout after the activation. Defaults to 0.
        folded: bool. Start without the BatchNorm. Defaults to `False`.
        **kwargs: name, dtype.

    Example:
        >>> import numpy as np
        >>> tuple(ConvFFN(16)(np.ones((1, 4, 4, 8), "float32")).shape[1:])
        (4, 4, 8)

    Reference: Vasu et al., "FastViT", arXiv:2303.14189, section 3.3.
    """

    is_fold = True

    def __init__(
        self,
        hidden_dim: int,
        kernel_size: int = 7,
        dropout_rate: float = 0.0,
        folded: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(inference_form=folded, **kwargs)
        self.hidden_dim, self.kernel_size = hidden_dim, kernel_size
        self.dropout_rate = dropout_rate
        policy = self.dtype_policy
        self.fc1 = keras.layers.Dense(hidden_dim, name="fc1", dtype=policy, **_dense_init())
        self.dropout = keras.layers.Dropout(dropout_rate, name="dropout", dtype=policy)
        self._channels = 0

    def folds(self) -> tuple[Fold, ...]:
        """`conv` and its BatchNorm into `folded_conv`."""
        return (BranchesIntoConv("folded_conv", self.kernel_size, ("conv",), "conv"),)

    def build(self, input_shape: Shape) -> None:
        """Creates the convolution and the second dense layer, which need the channels."""
        self._channels = int(input_shape[-1] or 0)
        self.fc2 = keras.layers.Dense(
            self._channels, name="fc2", dtype=self.dtype_policy, **_dense_init()
        )
        self.create_parts()
        super().build(input_shape)
        self.fc1.build(input_shape)
        self.fc2.build((*input_shape[:-1], self.hidden_dim))

    def create_parts(self) -> None:
        """Creates the convolution of the current form; needs the input's channels."""
        if not self._channels:
            return
        policy, size = self.dtype_policy, self.kernel_size
        if self.inference_form:
            self.folded_conv = DepthwiseConv(size, name="folded_conv", dtype=policy)
        else:
            self.conv = ConvNorm(self._channels, size, depthwise=True, name="conv", dtype=policy)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Mixes places, then channels."""
        if self.inference_form:
            x = self.folded_conv(inputs)
        else:
            x = self.conv(inputs, training=training)
        plain = type(self.fc1) is keras.layers.Dense  # others may follow their inputs' identity
        if plain and _CONVOLVES.get() and self._is_float():
            return _convolve(self.fc2, gelu(_convolve(self.fc1, x)))
        if not plain or not kernels.prefers_matrices():
            return self._mix_channels(x, training)
        shape = ops.shape(x)
        places = self._mix_channels(ops.reshape(x, (-1, shape[-1])), training)
        return ops.reshape(places, shape)

    def _is_float(self) -> bool:
        """Whether both dense layers compute in floating point."""
        return all(layer.quantization_mode is None for layer in (self.fc1, self.fc2))

    def _mix_channels(self, x: Any, training: bool | None) -> Any:
        """float[..., C] -> float[..., C]: the two dense layers."""
        if not self.dropout_rate:
            return feed_forward(self.fc1, self.fc2, x)
        hidden = self.dropout(project_with_gelu(self.fc1, x), training=training)
        return project(self.fc2, hidden)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "kernel_size": self.kernel_size,
            "dropout_rate": self.dropout_rate,
            "folded": self.inference_form,
        }


def _convolve(dense: keras.layers.Dense, x: Any) -> Any:
    """A dense layer of a map: float[B, H, W, C] -> float[B, H, W, F]."""
    kernel = ops.expand_dims(dense.kernel, (0, 1))
    return ops.add(ops.conv(x, kernel, data_format="channels_last"), dense.bias)


def _dense_init() -> dict[str, Any]:
    return {"kernel_initializer": HostTruncatedNormal()}
