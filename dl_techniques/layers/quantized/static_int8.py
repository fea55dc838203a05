"""int8 kernels, and inputs on a grid of 256 steps between extremes that were seen before.

Reference: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", arXiv:1712.05877, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from dl_techniques.kernels.torch_bytes import ByteProduct, takes_bytes
from dl_techniques.layers.convolution import Conv
from dl_techniques.layers.quantized.base import attach_classes
from dl_techniques.layers.quantized.fake_quant import ActivationQuantizer, nudged_grid
from dl_techniques.layers.quantized.int8_weights import Int8Weights, WidenedDense
from dl_techniques.typing import Tensor

KIND = "static_int8"


class StaticInt8(Int8Weights):
    """Mixin: int8 kernel, and inputs on a grid of 256 steps.

    On PyTorch's CPU, in inference, bytes are multiplied (see `kernels.torch_bytes`); everywhere
    else floats of the same numbers, so that outputs differ by rounding alone.
    """

    def take_scheme(self, scheme: Mapping[str, Any]) -> None:
        """Creates the quantizer of the inputs."""
        super().take_scheme(scheme)
        self.inputs_quantizer = ActivationQuantizer(
            name="inputs_quantizer",
            dtype=self.dtype_policy,  # type: ignore[attr-defined]
        )
        # Made of variables, but none of the layer's own.
        self.__dict__["_product"] = None

    def build_quantization(self) -> None:
        """Rounds the kernel and creates the range of the inputs."""
        super().build_quantization()
        self.inputs_quantizer.build()

    def byte_product(self, x: Tensor) -> ByteProduct | None:
        """What multiplies `x` as bytes; None where floats are multiplied."""
        if not takes_bytes(x, bool(self.trainable_variables)):  # type: ignore[attr-defined]
            return None
        product: ByteProduct | None = self.__dict__["_product"]
        if product is None or not product.current():
            product = self._new_product() if self.inputs_quantizer.known else None
            self.__dict__["_product"] = product
        return product

    def _new_product(self) -> ByteProduct:
        low, high = self.inputs_quantizer.low, self.inputs_quantizer.high
        step, zero = nudged_grid(ops.convert_to_tensor(low), ops.convert_to_tensor(high))
        bias: keras.Variable | None = self.bias  # type: ignore[attr-defined]
        grid = float(ops.convert_to_numpy(step)), int(ops.convert_to_numpy(zero))
        return ByteProduct(self.int8_kernel, self.kernel_scale, bias, grid, depends_on=(low, high))

    def call(self, inputs: Tensor, training: bool | None = None) -> Any:
        """The float layer on inputs that are rounded to their grid."""
        product = self.byte_product(inputs)
        if product is None:
            return super().call(self.inputs_quantizer(inputs, training=False))  # type: ignore[misc]
        outputs = product(product.bytes_of(inputs), self.compute_dtype)  # type: ignore[attr-defined]
        activation = self.activation  # type: ignore[attr-defined]
        return outputs if activation is None else activation(outputs)


@keras.saving.register_keras_serializable(package="dl_techniques")
class StaticInt8Conv(StaticInt8, Conv):
    """A 1x1 `Conv` in static int8."""


@keras.saving.register_keras_serializable(package="dl_techniques")
class StaticInt8Dense(StaticInt8, WidenedDense):
    """`keras.layers.Dense` in static int8."""


STATIC_INT8_CLASSES: dict[type, type] = {
    Conv: StaticInt8Conv,
    keras.layers.Dense: StaticInt8Dense,
}


def attach(network: keras.Model, table: Mapping[str, Mapping[str, Any]]) -> None:
    """Makes layers of a folded network static int8, with ranges yet to come.

    Args:
        network: folded.
        table: path of a layer -> its scheme, which is empty.
    """
    attach_classes(network, STATIC_INT8_CLASSES, KIND, table)
