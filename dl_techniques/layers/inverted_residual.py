"""Inverted residual block: expand, filter each channel, project; BatchNorm folds into each part.

Padding is TensorFlow's "same": at stride 2 an even side gets its zeros at the end, (0, 1) for a
3x3 kernel, where the convolutions of `layers.convolution` pad both ends alike.
"""

from __future__ import annotations

from typing import Any

import keras

from dl_techniques.layers.activations import get_activation, serialize_activation
from dl_techniques.layers.convolution import Conv, DepthwiseConv
from dl_techniques.layers.folding import Fold, NormIntoConv
from dl_techniques.layers.freezing import LayerOfParts
from dl_techniques.layers.initializers import HostTruncatedNormal
from dl_techniques.layers.reparameterization import Reparameterizable, SwitchableLayer
from dl_techniques.typing import Shape, Tensor

EPSILON, MOMENTUM = 1e-3, 0.99


@keras.saving.register_keras_serializable(package="dl_techniques")
class ConvNormActivation(SwitchableLayer):
    """Convolution, BatchNorm, activation: float[B, H, W, C] -> float[B, H', W', filters].

    In inference form convolution and BatchNorm (epsilon 1e-3) are one convolution with bias.

    Args:
        filters: int. Output channels; those of the input when `depthwise`.
        kernel_size: int. Odd side of the kernel. Defaults to 1.
        strides: int. H' = ceil(H / strides). Defaults to 1.
        depthwise: bool. Each channel by itself. Defaults to `False`.
        activation: str, callable or None. Defaults to "relu6".
        reparameterized: bool. Start in inference form. Defaults to `False`.
        **kwargs: name, dtype.

    Raises:
        ValueError: an even kernel, or `depthwise` with other `filters` than the input's channels.

    Example:
        >>> import numpy as np
        >>> layer = ConvNormActivation(8, 3, strides=2)
        >>> y = layer(np.ones((1, 8, 8, 3), "float32"))
        >>> layer.reparameterize()
        >>> tuple(y.shape), len(layer.weights)
        ((1, 4, 4, 8), 2)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 1,
        strides: int = 1,
        depthwise: bool = False,
        activation: Any = "relu6",
        reparameterized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(inference_form=reparameterized, **kwargs)
        self.filters, self.kernel_size, self.strides = filters, kernel_size, strides
        self.depthwise = depthwise
        self.activation = get_activation(activation)
        self._channels = 0

    def folds(self) -> tuple[Fold, ...]:
        """`conv` and `norm` into `fused_conv`."""
        return (NormIntoConv("fused_conv", "conv", "norm", self.depthwise),)

    def build(self, input_shape: Shape) -> None:
        """Creates and builds the current form."""
        self._channels = int(input_shape[-1] or 0)
        if self.depthwise and self.filters != self._channels:
            raise ValueError(
                f"{self.name}: a depthwise convolution keeps the input's channels; got "
                f"filters={self.filters} for {self._channels} channels"
            )
        self.create_parts()
        super().build(input_shape)

    def create_parts(self) -> None:
        """Creates the parts of the current form; needs the input's channels."""
        if not self._channels:
            return
        if self.inference_form:
            self.fused_conv = self._convolution(use_bias=True, name="fused_conv")
            return
        self.conv = self._convolution(use_bias=False, name="conv")
        self.norm = keras.layers.BatchNormalization(
            epsilon=EPSILON, momentum=MOMENTUM, name="norm", dtype=self.dtype_policy
        )

    def _convolution(self, **kwargs: Any) -> Any:
        kwargs["dtype"] = self.dtype_policy
        if self.kernel_size % 2 == 0:
            raise ValueError(f"{self.name}: kernel_size must be odd; got {self.kernel_size}")
        if self.strides == 1:  # both ways to pad agree
            if self.depthwise:
                return DepthwiseConv(self.kernel_size, **kwargs)
            return Conv(self.filters, self.kernel_size, **kwargs)
        kwargs |= {"strides": self.strides, "padding": "same", "data_format": "channels_last"}
        if self.depthwise:
            return keras.layers.DepthwiseConv2D(
                self.kernel_size, depthwise_initializer=HostTruncatedNormal(), **kwargs
            )
        return keras.layers.Conv2D(
            self.filters, self.kernel_size, kernel_initializer=HostTruncatedNormal(), **kwargs
        )

    def build_parts(self, input_shape: Shape) -> None:
        """Builds the sublayers of the current form."""
        if self.inference_form:
            if not self.fused_conv.built:
                self.fused_conv.build(input_shape)
        elif not self.conv.built:
            self.conv.build(input_shape)
            self.norm.build(self.compute_output_shape(input_shape))

    def call(self, inputs: Tensor, training: bool | None = None) -> Any:
        """Convolution and BatchNorm (or the fused convolution), activation."""
        if self.inference_form:
            outputs = self.fused_conv(inputs)
        else:
            outputs = self.norm(self.conv(inputs), training=training)
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """float[B, ceil(H / s), ceil(W / s), filters]."""
        batch, *sides, _ = input_shape
        height, width = (None if side is None else -(-side // self.strides) for side in sides)
        return (batch, height, width, self.filters)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "depthwise": self.depthwise,
            "activation": serialize_activation(self.activation),
            "reparameterized": self.inference_form,
        }


@keras.saving.register_keras_serializable(package="dl_techniques")
class InvertedResidual(Reparameterizable, LayerOfParts):
    """1x1 expansion, depthwise k x k, 1x1 projection: float[B,H,W,C] -> float[B,H',W',filters].

    ReLU6 after the first two, nothing after the third. The input is added where the shape stays.

    Args:
        filters: int. Output channels.
        kernel_size: int. Of the depthwise convolution. Defaults to 3.
        strides: int. Of the depthwise convolution. Defaults to 1.
        expansion: int. Width inside over input channels; 1 leaves the first part out. Defaults
            to 6.
        reparameterized: bool. Start in inference form. Defaults to `False`.
        **kwargs: name, dtype.

    Example:
        >>> import numpy as np
        >>> tuple(InvertedResidual(8, strides=2)(np.ones((1, 8, 6, 4), "float32")).shape)
        (1, 4, 3, 8)

    Reference: Sandler et al., "MobileNetV2", arXiv:1801.04381, figure 4.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        expansion: int = 6,
        reparameterized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.strides = filters, kernel_size, strides
        self.expansion = expansion
        self._starts_fused = reparameterized
        self._is_residual = False
        self.blocks: list[ConvNormActivation] = []

    def build(self, input_shape: Shape) -> None:
        """Creates the parts, which need the input's channels."""
        shape = tuple(input_shape)
        channels = int(shape[-1] or 0)
        self._is_residual = self.strides == 1 and channels == self.filters
        for part in self._parts(channels):
            self.blocks.append(part)
            part.build(shape)
            shape = part.compute_output_shape(shape)

    def _parts(self, channels: int) -> list[ConvNormActivation]:
        common: dict[str, Any] = {
            "reparameterized": self._starts_fused,
            "dtype": self.dtype_policy,
        }
        inside = channels * self.expansion
        expand = [ConvNormActivation(inside, name="expand", **common)] if self.expansion > 1 else []
        return [
            *expand,
            ConvNormActivation(
                inside, self.kernel_size, self.strides, True, name="depthwise", **common
            ),
            ConvNormActivation(self.filters, activation=None, name="project", **common),
        ]

    def call(self, inputs: Tensor, training: bool | None = None) -> Any:
        """Applies the parts; adds the input."""
        outputs = inputs
        for part in self.blocks:
            outputs = part(outputs, training=training)
        return inputs + outputs if self._is_residual else outputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """float[B, ceil(H / s), ceil(W / s), filters]."""
        batch, *sides, _ = input_shape
        height, width = (None if side is None else -(-side // self.strides) for side in sides)
        return (batch, height, width, self.filters)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "expansion": self.expansion,
            "reparameterized": self.reparameterized if self.blocks else self._starts_fused,
        }
