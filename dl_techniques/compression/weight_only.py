"""int8 weights after training, for convolutions too: a quarter of the bytes, on every backend.

Keras' own `quantize("int8")` covers dense layers and embeddings. Here the kernels of convolutions,
depthwise convolutions and dense layers are stored as int8 with one float32 scale an output channel,
and multiplied out when the layer is called; biases and norms stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dl_techniques.errors import CompressionError
from dl_techniques.layers.quantized.base import (
    choose_layers,
    convert,
    refuse_quantized,
)
from dl_techniques.layers.quantized.int8_weights import INT8_CLASSES, attach
from dl_techniques.models.picture_network import PictureNetwork
from dl_techniques.models.vision.switchable_model import SwitchableModel

if TYPE_CHECKING:
    import keras


def quantize_weights(model: keras.Model, *, bits: int = 8, skip: Sequence[str] = ()) -> list[str]:
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


def float_network_of(model: keras.Model) -> Any:
    """The vision encoder of a vision-language model, or the model itself; folded, if it can be.

    Raises:
        CompressionError: it is quantized already.
    """
    backbone = getattr(model, "backbone", model)
    network = getattr(backbone, "vision_encoder", model)
    refuse_quantized(network)
    if isinstance(network, SwitchableModel):
        network.reparameterize(fold=True)
        forget_compiled(model)
    return network


def forget_compiled(model: keras.Model) -> None:
    """Lets a vision-language model notice that its encoder has changed."""
    if isinstance(model, PictureNetwork) and "vlm" in model.parts():
        whole: Any = model
        whole.forget_compiled()
