"""Convolutions and dense layers that train with the rounding of integer kernels.

Each computes, in this order: its inputs rounded (unless they come rounded from the layer before),
the product with its rounded kernel, its bias, a ReLU if it has one, the outputs rounded, any other
activation. That is what one integer kernel of LiteRT does, table of the activation included.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from dl_techniques.compat.keras_layers import drop_part, named_parts, unlocked
from dl_techniques.errors import CompressionError
from dl_techniques.layers.convolution import Conv, DepthwiseConv
from dl_techniques.layers.quantized.base import QuantizedLayer, convert, note
from dl_techniques.layers.quantized.fake_quant import ActivationQuantizer, arithmetic
from dl_techniques.typing import Tensor

_INSIDE = (keras.activations.linear, keras.activations.relu, keras.activations.relu6)
"""Activations that an integer kernel applies before it rounds its outputs."""


class FakeQuantized(QuantizedLayer):
    """Mixin: fake quantization of kernel, inputs and outputs.

    The scheme: `bits`; `inputs` and `outputs`, whether these are rounded; `momentum` of their
    ranges; `relu`, whether a ReLU that follows the layer is computed inside.
    """

    default_scheme: Mapping[str, Any] = {
        "bits": 8,
        "inputs": True,
        "outputs": True,
        "momentum": 0.99,
        "relu": False,
    }

    def take_scheme(self, scheme: Mapping[str, Any]) -> None:
        """Creates the quantizers of the activations and sorts the layer's own activation."""
        super().take_scheme(scheme)
        # Named once: `activation` is what runs before the outputs are rounded, this one after.
        self.late_activation = None
        own = self.activation or keras.activations.linear  # type: ignore[has-type]
        if scheme["relu"]:
            self.activation = keras.activations.relu
        elif own not in _INSIDE:
            self.late_activation, self.activation = own, keras.activations.linear
        self.inputs_quantizer = self._quantizer("inputs")
        self.outputs_quantizer = self._quantizer("outputs")

    def _quantizer(self, name: str) -> ActivationQuantizer | None:
        if not self.scheme[name]:
            return None
        bits, momentum = self.scheme["bits"], self.scheme["momentum"]
        policy = self.dtype_policy  # type: ignore[attr-defined]
        return ActivationQuantizer(bits, momentum, name=f"{name}_quantizer", dtype=policy)

    def build_quantization(self) -> None:
        """Creates the ranges of the activations."""
        for quantizer in self.quantizers:
            quantizer.build()

    @property
    def quantizers(self) -> list[ActivationQuantizer]:
        """Those of inputs and outputs that exist."""
        both = [self.inputs_quantizer, self.outputs_quantizer]
        return [quantizer for quantizer in both if quantizer is not None]

    def leave_inputs(self) -> None:
        """Takes the inputs as they come from now on: they are rounded already."""
        with unlocked(self):
            drop_part(self, "inputs_quantizer")
        self.scheme = {**self.scheme, "inputs": False}

    @property
    def kernel(self) -> Any:
        """The kernel, rounded to its grid."""
        return arithmetic().kernel(self.float_kernel, self.shared_axes, self.scheme["bits"])

    @kernel.setter
    def kernel(self, value: Any) -> None:
        self.__dict__["_kernel"] = value

    def call(self, inputs: Tensor, training: bool | None = None) -> Any:
        """The float layer between roundings."""
        # Layers around hand `training` to some of these and not to others: the quantizers take
        # it from Keras' call context, which an explicit None would overwrite.
        if self.inputs_quantizer is not None:
            inputs = self.inputs_quantizer(inputs)
        outputs = super().call(inputs)  # type: ignore[misc]
        if self.outputs_quantizer is not None:
            outputs = self.outputs_quantizer(outputs)
        return outputs if self.late_activation is None else self.late_activation(outputs)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments of the float layer, and the scheme."""
        late = self.late_activation
        own = {} if late is None else {"activation": keras.activations.serialize(late)}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="dl_techniques")
class FakeQuantConv(FakeQuantized, Conv):
    """`Conv` with fake quantization."""


@keras.saving.register_keras_serializable(package="dl_techniques")
class FakeQuantDepthwiseConv(FakeQuantized, DepthwiseConv):
    """`DepthwiseConv` with fake quantization."""


@keras.saving.register_keras_serializable(package="dl_techniques")
class FakeQuantConv2D(FakeQuantized, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with fake quantization."""


@keras.saving.register_keras_serializable(package="dl_techniques")
class FakeQuantDepthwiseConv2D(FakeQuantized, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with fake quantization."""


@keras.saving.register_keras_serializable(package="dl_techniques")
class FakeQuantDense(FakeQuantized, keras.layers.Dense):
    """`keras.layers.Dense` with fake quantization."""


FAKE_QUANT_CLASSES: dict[type, type] = {
    Conv: FakeQuantConv,
    DepthwiseConv: FakeQuantDepthwiseConv,
    keras.layers.Conv2D: FakeQuantConv2D,
    keras.layers.DepthwiseConv2D: FakeQuantDepthwiseConv2D,
    keras.layers.Dense: FakeQuantDense,
}

KIND = "fake_quant"
Table = Mapping[str, Mapping[str, Any]]


def attach(network: keras.Model, table: Table) -> None:
    """Makes layers of a folded float network round, and lets its config say so.

    Args:
        network: folded.
        table: path of a layer -> its scheme, see `FakeQuantized`.
    """
    let_round(network, table)
    note(network, KIND, table)


def let_round(model: keras.Model, table: Table) -> None:
    """Makes layers of a built float model round.

    Args:
        model: in which the layers have these paths.
        table: path of a layer -> its scheme, see `FakeQuantized`.
    """
    # A ReLU that a block applies after its convolution moves into the convolution.
    blocks = dict(named_parts(model))
    for path, scheme in table.items():
        if scheme["relu"]:
            blocks[path.rpartition("/")[0]].activation = keras.activations.linear
    convert(model, FAKE_QUANT_CLASSES, table)


def fake_quantized(model: keras.Model) -> list[tuple[str, Any]]:
    """The layers of a model that round, with their paths.

    Raises:
        CompressionError: it has none.
    """
    found = [(p, layer) for p, layer in named_parts(model) if isinstance(layer, FakeQuantized)]
    if not found:
        raise CompressionError(
            f"{model.name} is not quantization-aware: call quantization_aware(model) first"
        )
    return found
