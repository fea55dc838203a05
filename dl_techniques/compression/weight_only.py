"""int8 weights after training, for convolutions too: a quarter of the bytes, on every backend.

Keras' own `quantize("int8")` covers dense layers and embeddings. Here the kernels of convolutions,
depthwise convolutions and dense layers are stored as int8 with one float32 scale an output channel,
and multiplied out when the layer is called; biases and norms stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques import kernels
from dl_techniques.compat.keras_layers import forget_variable, named_parts
from dl_techniques.errors import CompressionError
from dl_techniques.layers.convolution import Conv, DepthwiseConv
from dl_techniques.layers.quantized.base import (
    QuantizedLayer,
    attach_classes,
    choose_layers,
    convert,
)
from dl_techniques.models.vision.switchable_model import SwitchableModel

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

    def call(self, inputs: Any, training: bool | None = None) -> Any:
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


def quantize_weights(model: Any, *, bits: int = 8, skip: Sequence[str] = ()) -> list[str]:
    """Stores the kernels of a trained model as int8, in place.

    A network that can be fused is fused and folded first, and cannot be trained afterwards. Of a
    vision-language model this takes the vision encoder; `model.quantize("int8")` takes the rest.
    Files and presets keep the int8 weights and load on every backend.

    Args:
        model: a built FastVLM, MobileOne, FastVLMCausalLM or FastVLMBackbone, or a functional or
            sequential Keras model.
        bits: int. 8; LiteRT files can have fewer, see `fastvlm export --precision int4_weights`.
        skip: regular expressions; layers whose path (`stage_1/block_0/conv_ffn/fc1`) one of them
            finds stay as they are.

    Returns:
        The paths of the layers whose kernels are int8 now.

    Raises:
        CompressionError: nothing to quantize, another number of bits, a model that is quantized
            already, or a pattern that finds nothing.

    Example:
        >>> from dl_techniques import FastVLM
        >>> model = FastVLM.from_variant("nano", num_classes=10, input_shape=(64, 64, 3))
        >>> layers = quantize_weights(model, skip=["^head$"])
        >>> model.stem.blocks[0].fused_conv.int8_kernel.dtype
        'int8'
    """
    if bits != 8:
        raise CompressionError(f"Keras stores kernels in 8 bits, got bits={bits}; leave it out")
    network = float_network_of(model)
    paths = choose_layers(network, INT8_CLASSES, skip)
    if isinstance(network, SwitchableModel):
        attach(network, {path: {} for path in paths})
    else:
        convert(network, INT8_CLASSES, {path: {} for path in paths})
    forget_compiled(model)
    return paths


def attach(network: SwitchableModel, table: Mapping[str, Mapping[str, Any]]) -> None:
    """Gives a folded network int8 kernels and lets its config say so.

    Args:
        network: folded.
        table: path of a layer -> its scheme, which is empty.
    """
    attach_classes(network, INT8_CLASSES, KIND, table)


def float_network_of(model: Any) -> Any:
    """The vision encoder of a vision-language model, or the model itself; folded, if it can be.

    Raises:
        CompressionError: it is quantized already.
    """
    backbone = getattr(model, "backbone", model)
    network = getattr(backbone, "vision_encoder", model)
    noted = getattr(network, "quantization", None) is not None
    by_keras = (getattr(layer, "quantization_mode", None) for _, layer in named_parts(network))
    if noted or any(by_keras):
        raise CompressionError(f"{network.name} is quantized already; start from the float one")
    if isinstance(network, SwitchableModel):
        network.reparameterize(fold=True)
        forget_compiled(model)
    return network


def forget_compiled(model: Any) -> None:
    """Lets a vision-language model notice that its encoder has changed."""
    if hasattr(model, "_forget_compiled"):
        model._forget_compiled()
