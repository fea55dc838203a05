"""Dense and depthwise 2-D convolutions with symmetric padding, NHWC.

Every convolution of this family pads `kernel // 2` zeros on each side, at every stride. Keras'
"same" pads (0, 1) at stride 2 on even sizes: other numbers than the published networks, and a
1x1 branch that is no longer centred in its k x k neighbour, so that fusing would be wrong.
"""

from __future__ import annotations

from typing import Any

import keras

from dl_techniques import kernels
from dl_techniques.layers.initializers import HostTruncatedNormal
from dl_techniques.typing import Shape, Tensor


def _padded_shape(shape: Shape, kernel_size: int) -> Shape:
    margin = 2 * (kernel_size // 2)
    batch, height, width, channels = shape
    return (
        batch,
        None if height is None else height + margin,
        None if width is None else width + margin,
        channels,
    )


def _check_kernel(kernel_size: int) -> int:
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(
            f"kernel_size must be odd and positive so that padding can be symmetric; "
            f"got {kernel_size}"
        )
    return kernel_size


@keras.saving.register_keras_serializable(package="dl_techniques")
class Conv(keras.layers.Conv2D):
    """Dense convolution, symmetric padding: float[B, H, W, C] -> float[B, H', W', filters].

    Args:
        filters: int. Output channels.
        kernel_size: int. Odd side of the square kernel.
        strides: int. H' = ceil(H / strides). Defaults to 1.
        use_bias: bool. Defaults to `True`.
        **kwargs: name, dtype, initializers of `keras.layers.Conv2D`.

    Raises:
        ValueError: the kernel's side is even.

    Example:
        >>> import numpy as np
        >>> tuple(Conv(8, 3, strides=2)(np.ones((1, 6, 5, 3), "float32")).shape[1:])
        (3, 3, 8)
    """

    def __init__(
        self, filters: int, kernel_size: int, strides: int = 1, use_bias: bool = True, **kwargs: Any
    ) -> None:
        kwargs.update(padding="valid", data_format="channels_last")
        kwargs.setdefault("kernel_initializer", HostTruncatedNormal())
        super().__init__(filters, _check_kernel(kernel_size), strides, use_bias=use_bias, **kwargs)

    def call(self, inputs: Tensor) -> Any:
        """Pads, convolves, adds the bias."""
        size, step = self.kernel_size[0], self.strides[0]
        if size == 1 and step > 1:
            # oneDNN's gradient of a strided 1x1 convolution of an RGB picture with even sides
            # writes beyond its memory (TensorFlow 2.21, PyTorch 2.13): a segmentation fault.
            inputs, step = inputs[:, ::step, ::step], 1
        bias = self.bias if self.use_bias else None
        return _activated(self, kernels.conv(inputs, self.kernel, bias, step))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """float[B, H, W, C] -> float[B, ceil(H / s), ceil(W / s), filters]."""
        return super().compute_output_shape(_padded_shape(input_shape, self.kernel_size[0]))

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments; padding and data format are fixed."""
        return _square_config(super().get_config())


@keras.saving.register_keras_serializable(package="dl_techniques")
class DepthwiseConv(keras.layers.DepthwiseConv2D):
    """Depthwise convolution, symmetric padding: float[B, H, W, C] -> float[B, H', W', C * m].

    Args:
        kernel_size: int. Odd side of the square kernel.
        strides: int. Defaults to 1.
        depth_multiplier: int. Outputs m of every input channel, at index `c * m + i`.
            Defaults to 1.
        use_bias: bool. Defaults to `True`.
        **kwargs: name, dtype, initializers of `keras.layers.DepthwiseConv2D`.

    Raises:
        ValueError: the kernel's side is even.

    Example:
        >>> import numpy as np
        >>> tuple(DepthwiseConv(7, strides=2, depth_multiplier=2)(np.ones((1, 8, 8, 4))).shape[1:])
        (4, 4, 8)
    """

    def __init__(
        self,
        kernel_size: int,
        strides: int = 1,
        depth_multiplier: int = 1,
        use_bias: bool = True,
        **kwargs: Any,
    ) -> None:
        kwargs.update(padding="valid", data_format="channels_last")
        kwargs.setdefault("depthwise_initializer", HostTruncatedNormal())
        super().__init__(
            _check_kernel(kernel_size),
            strides,
            depth_multiplier=depth_multiplier,
            use_bias=use_bias,
            **kwargs,
        )

    def call(self, inputs: Tensor) -> Any:
        """Pads, convolves each channel by itself, adds the bias."""
        bias = self.bias if self.use_bias else None
        outputs = kernels.depthwise_conv(inputs, self.kernel, bias, self.strides[0])
        return _activated(self, outputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """float[B, H, W, C] -> float[B, ceil(H / s), ceil(W / s), C * m]."""
        return super().compute_output_shape(_padded_shape(input_shape, self.kernel_size[0]))

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments; padding and data format are fixed."""
        return _square_config(super().get_config())


def _activated(layer: keras.layers.Layer, outputs: Tensor) -> Any:
    return outputs if layer.activation is None else layer.activation(outputs)


def _square_config(config: dict[str, Any]) -> dict[str, Any]:
    """Keras' convolution config with scalar kernel and stride, without what we fix."""
    config["kernel_size"] = int(config["kernel_size"][0])
    config["strides"] = int(config["strides"][0])
    for fixed in ("padding", "data_format", "dilation_rate", "groups"):
        config.pop(fixed, None)
    return config
