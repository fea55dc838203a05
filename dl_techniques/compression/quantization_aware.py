"""Quantization-aware training: a network that learns while its integers are already rounded.

    trained network -> quantization_aware -> calibrate -> compile, fit -> export_quantized

The network is fused and folded first (BatchNorm is gone, every convolution has its bias), because
what is rounded must be what the integer kernel will compute.

Reference: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", arXiv:1712.05877, section 3; Krishnamoorthi, "Quantizing deep
convolutional networks for efficient inference", arXiv:1806.08342, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from dl_techniques.compat.keras_layers import named_parts
from dl_techniques.compat.keras_models import is_functional
from dl_techniques.compression.calibration import Range, show
from dl_techniques.errors import CompressionError
from dl_techniques.layers.mobile_one_block import MobileOneBlock
from dl_techniques.layers.quantized.base import (
    choose_layers,
    note,
    refuse_quantized,
)
from dl_techniques.layers.quantized.fake_quant import ActivationQuantizer, Arithmetic, computed_by
from dl_techniques.layers.quantized.fake_quant_layers import (
    FAKE_QUANT_CLASSES,
    KIND,
    FakeQuantized,
    fake_quantized,
    let_round,
)
from dl_techniques.models.vision.switchable_model import SwitchableModel
from dl_techniques.typing import Tensor


def quantization_aware(
    model: keras.Model,
    *,
    bits: int = 8,
    skip: Sequence[str] = (),
    activations: bool = True,
    momentum: float = 0.99,
) -> Any:
    """A copy of a trained network that trains with rounded weights and activations.

    Convolutions, depthwise convolutions and dense layers are rounded; what lies between them
    (residual sums, the products and the softmax of attention, norms, pooling) computes in float
    with rounded inputs. Files and presets keep the rounding and load on every backend.

    Of a functional or sequential Keras model with layers of `keras.layers` the same layers are
    rounded; its BatchNorms stay in float. Before such a file is loaded, import this module.

    Args:
        model: a built FastVLM or MobileOne in any form, or a functional or sequential Keras model.
        bits: int from 2 to 8. Of weights and activations; LiteRT's kernels need 8. Defaults to 8.
        skip: regular expressions; layers whose path (`stage_1/block_0/conv_ffn/fc1`) one of them
            finds stay in float.
        activations: bool. Round activations as well as weights. Defaults to `True`.
        momentum: float. Of the moving ranges of activations. Defaults to 0.99.

    Returns:
        A model of the same class. `compile` it with a small learning rate and `fit` it.

    Raises:
        CompressionError: nothing to quantize, impossible bits, or a pattern that finds nothing.

    Example:
        >>> import keras, numpy as np
        >>> from dl_techniques import FastVLM
        >>> sizes = {"embed_dims": (8, 16), "depths": (1, 1), "num_heads": (1, 2)}
        >>> model = FastVLM(num_classes=10, input_shape=(32, 32, 3), **sizes)
        >>> pictures = np.random.default_rng(0).uniform(size=(4, 32, 32, 3)).astype("float32")
        >>> learner = quantization_aware(model)
        >>> calibrate(learner, pictures)
        >>> learner.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> history = learner.fit(pictures, np.arange(4), verbose=0)
    """
    if not 2 <= bits <= 8:
        raise CompressionError(f"bits must be from 2 to 8, got {bits}")
    refuse_quantized(model)
    scheme = {"bits": bits, "momentum": momentum, "inputs": activations, "outputs": activations}
    copy = _folded_copy(model)
    paths = choose_layers(copy, FAKE_QUANT_CLASSES, skip)
    followed = _followed_by_relu(copy)
    let_round(copy, {path: {**scheme, "relu": path in followed} for path in paths})
    _leave_out_repeated(copy)
    return copy


def _folded_copy(model: keras.Model) -> Any:
    """An uncompiled copy with the same weights; fused and folded where it can be."""
    switchable = isinstance(model, SwitchableModel)
    if not switchable and not is_functional(model):
        raise CompressionError(
            f"{model.name}, a {type(model).__name__}, is neither a FastVLM, a MobileOne nor a "
            "functional or sequential Keras model; of a FastVLMCausalLM take its vision encoder"
        )
    if switchable:
        copy = type(model).from_config(model.get_config())
    else:
        copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    if switchable:
        copy.reparameterize(fold=True)
    return copy


def _followed_by_relu(model: keras.Model) -> set[str]:
    """Paths of the fused convolutions whose block applies a ReLU right after them."""
    return {
        f"{path}/fused_conv"
        for path, layer in named_parts(model)
        if isinstance(layer, MobileOneBlock)
        and layer.activation is keras.activations.relu
        and layer.se is None
    }


class _Trace(Arithmetic):
    """Lets everything pass and notes which inputs come rounded from another layer's outputs."""

    def __init__(self) -> None:
        self.rounded: dict[int, Any] = {}
        self.repeated: set[int] = set()

    def activations(self, quantizer: ActivationQuantizer, inputs: Tensor, training: bool) -> Any:
        """Notes the tensor; the reference keeps its identity from being used again."""
        if quantizer.name.startswith("outputs"):
            self.rounded[id(inputs)] = inputs
        elif id(inputs) in self.rounded:
            self.repeated.add(id(quantizer))
        return inputs


def _leave_out_repeated(model: keras.Model) -> None:
    """Removes the quantizers of inputs that already are another layer's rounded outputs."""
    trace = _Trace()
    with computed_by(trace):
        model(ops.zeros(_input_shape(model)), training=False)
    table = {}
    for path, layer in named_parts(model):
        if isinstance(layer, FakeQuantized):
            if layer.scheme["inputs"] and id(layer.inputs_quantizer) in trace.repeated:
                layer.leave_inputs()
            table[path] = layer.scheme
    if isinstance(model, SwitchableModel):
        note(model, KIND, table)


def _input_shape(model: keras.Model) -> tuple[int, ...]:
    """The shape of one input; unknown sides are taken as small as the network can have them."""
    side = 2 * getattr(model, "total_stride", 16)
    return (1, *(side if length is None else int(length) for length in model.input_shape[1:]))


class _Observer(Arithmetic):
    """Computes in float and notes the extremes of what passes each quantizer."""

    def __init__(self) -> None:
        self.ranges: dict[int, tuple[ActivationQuantizer, Range]] = {}

    def activations(self, quantizer: ActivationQuantizer, inputs: Tensor, training: bool) -> Any:
        """Widens the quantizer's range by these inputs."""
        _, seen = self.ranges.setdefault(id(quantizer), (quantizer, Range()))
        seen.widen(inputs)
        return inputs


def calibrate(model: keras.Model, pictures: Any, batch_size: int = 32) -> None:
    """Sets the ranges of all activations to the extremes that they take on some pictures.

    Args:
        model: from `quantization_aware`.
        pictures: float[N, H, W, 3] as `fit` takes them, or an iterable of such batches (of a pair
            the first entry counts). Some hundred are plenty.
        batch_size: int. Pictures at once, where an array is given. Defaults to 32.

    Raises:
        CompressionError: a model without quantizers, no pictures, or activations that are not
            finite.
    """
    fake_quantized(model)
    observer = _Observer()
    with computed_by(observer):
        show(model, pictures, batch_size)
    if not observer.ranges:
        raise CompressionError(
            "calibrate needs pictures and got none, or the model rounds weights only; give "
            "float[N, H, W, 3] or an iterable of batches"
        )
    for quantizer, seen in observer.ranges.values():
        if not seen.finite:
            raise CompressionError(f"activations at {quantizer.path} are not finite")
        seen.assign_to(quantizer)
