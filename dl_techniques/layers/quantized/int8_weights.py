"""int8 kernels with a float32 scale an output channel, multiplied out when the layer is called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques import kernels
from dl_techniques.compat.keras_layers import forget_variable
from dl_techniques.layers.convolution import Conv, DepthwiseConv
from dl_techniques.layers.quantized.base import QuantizedLayer, attach_classes
from dl_techniques.typing import Tensor

KIND = "int8_weights"


class Int8Weights(QuantizedLayer):
    """Mixin: the kernel is int8 times a float32 scale for each output channel."""

    def build_quantization(self) -> None:
        """Replaces the float kernel by its rounded form."""
        kernel = np.asarray(ops.convert_to_numpy(self.float_kernel), "float32")
        forget_variable(self, self.float_kernel)
        largest = np.max(np.abs(kernel), axis=self.shared_axes, keepdims=True)
        scale = np.where(largest > 0, largest / 127.0, 1.0).astype("float32")
        self.__dict__["_kernel"] = None
        self.int8_kernel = self._constant("int8_kernel", np.round(kernel / scale), "int8")
        self.kernel_scale = self._constant("kernel_scale", scale, "float32")

    def _constant(self, name: str, values: np.ndarray, dtype: str) -> Any:
        variable = self.add_weight(  # type: ignore[attr-defined]
            name=name,
            shape=values.shape,
            dtype=dtype,
            initializer="zeros",
            trainable=False,
            autocast=False,
        )
        variable.assign(values.astype(dtype))
        return variable

    @property
    def kernel(self) -> Any:
        """The kernel in the layer's compute dtype."""
        exact = ops.cast(self.int8_kernel, "float32") * self.kernel_scale
        return ops.cast(exact, self.compute_dtype)  # type: ignore[attr-defined]

    @kernel.setter
    def kernel(self, value: Any) -> None:
        self.__dict__["_kernel"] = value


@keras.saving.register_keras_serializable(package="dl_techniques")
class Int8Conv(Int8Weights, Conv):
    """`Conv` with an int8 kernel."""


@keras.saving.register_keras_serializable(package="dl_techniques")
class Int8DepthwiseConv(Int8Weights, DepthwiseConv):
    """`DepthwiseConv` with an int8 kernel."""


@keras.saving.register_keras_serializable(package="dl_techniques")
class Int8Conv2D(Int8Weights, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with an int8 kernel."""


@keras.saving.register_keras_serializable(package="dl_techniques")
class Int8DepthwiseConv2D(Int8Weights, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with an int8 kernel."""


class WidenedDense(keras.layers.Dense):
    """`keras.layers.Dense` whose kernel is made anew in every call, from integers."""

    def call(self, inputs: Tensor, training: bool | None = None) -> Any:
        """float[..., K] -> float[..., units]."""
        # Keras multiplies and adds where `kernels.dense` has no better way of its own.
        if self.compute_dtype != "bfloat16" or not kernels.keeps_wide_sums():
            return super().call(inputs, training=training)
        outputs = kernels.dense(inputs, self.kernel, self.bias)
        return outputs if self.activation is None else self.activation(outputs)


@keras.saving.register_keras_serializable(package="dl_techniques")
class Int8Dense(Int8Weights, WidenedDense):
    """`keras.layers.Dense` with an int8 kernel."""


INT8_CLASSES: dict[type, type] = {
    Conv: Int8Conv,
    DepthwiseConv: Int8DepthwiseConv,
    keras.layers.Conv2D: Int8Conv2D,
    keras.layers.DepthwiseConv2D: Int8DepthwiseConv2D,
    keras.layers.Dense: Int8Dense,
}


def attach(network: keras.Model, table: Mapping[str, Mapping[str, Any]]) -> None:
    """Gives a folded network int8 kernels and lets its config say so.

    Args:
        network: folded.
        table: path of a layer -> its scheme, which is empty.
    """
    attach_classes(network, INT8_CLASSES, KIND, table)
