"""Static int8 after training: matrix products of bytes, with ranges seen on some pictures.

Kernels are int8 as in `weight_only`; the inputs are rounded as well, to 256 steps between the
extremes that calibration saw. That is done to the dense layers and the 1x1 convolutions, where
nearly all the arithmetic of these networks is; depthwise convolutions, sums, norms and the softmax
of attention stay in floating point.

Reference: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", arXiv:1712.05877, section 2; Krishnamoorthi, "Quantizing deep
convolutional networks for efficient inference", arXiv:1806.08342, section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dl_techniques.compat.keras_layers import named_parts
from dl_techniques.compression.calibration import Range, show
from dl_techniques.compression.weight_only import (
    float_network_of,
    forget_compiled,
)
from dl_techniques.errors import CompressionError
from dl_techniques.layers.convolution import Conv
from dl_techniques.layers.quantized.base import (
    choose_layers,
)
from dl_techniques.layers.quantized.static_int8 import STATIC_INT8_CLASSES, attach
from dl_techniques.layers.squeeze_excitation import SqueezeExcitation
from dl_techniques.models.vision.switchable_model import SwitchableModel
from dl_techniques.typing import Tensor

if TYPE_CHECKING:
    import keras


def quantize_static(
    model: keras.Model, pictures: Any, *, skip: Sequence[str] = (), batch_size: int = 32
) -> list[str]:
    """Rounds the matrix products of a trained network to int8, inputs and kernels, in place.

    The network is fused and folded first, and cannot be trained afterwards. Of a vision-language
    model this takes the vision encoder; `model.quantize("int8")` takes the rest. Files and presets
    keep the integers and load on every backend; PyTorch multiplies bytes on processors with AVX-512
    VNNI in `predict` and in a vision-language model's answers (not where a gradient is wanted), the
    others compute the same in floating point. Files of other engines have integers of their own:
    export the float network with `precision="int8_static"`.

    Args:
        model: a built FastVLM, MobileOne, FastVLMCausalLM or FastVLMBackbone.
        pictures: float[N, H, W, 3] as the encoder takes them, or an iterable of such batches (of a
            pair the first entry counts). Some dozen that look like what will come; what lies beyond
            the extremes that they reach is cut off.
        skip: regular expressions; layers whose path (`stage_1/block_0/conv_ffn/fc1`) one of them
            finds stay as they are.
        batch_size: int. Pictures at once, where an array is given. Defaults to 32.

    Returns:
        The paths of the layers that are int8 now.

    Raises:
        CompressionError: no pictures, activations that are not finite, nothing to quantize, a model
            that is quantized already, or a pattern that finds nothing. No number has changed then.

    Example:
        >>> import numpy as np
        >>> from dl_techniques import FastVLM
        >>> model = FastVLM.from_variant("nano", num_classes=10, input_shape=(32, 32, 3))
        >>> pictures = np.random.default_rng(0).uniform(size=(4, 32, 32, 3)).astype("float32")
        >>> layers = quantize_static(model, pictures)
        >>> model.stages[0].blocks[0].conv_ffn.fc1.int8_kernel.dtype
        'int8'
    """
    network = float_network_of(model)
    if not isinstance(network, SwitchableModel):
        raise CompressionError(
            f"{model.name}, a {type(model).__name__}, is neither a FastVLM, a MobileOne nor a "
            "vision-language model; quantize_weights() takes other Keras models"
        )
    paths = choose_layers(network, STATIC_INT8_CLASSES, skip, _is_matrix_product(network))
    layers = dict(named_parts(network))
    ranges = _seen_ranges(network, {p: layers[p] for p in paths}, pictures, batch_size)
    attach(network, {path: {} for path in paths})
    for path, seen in ranges.items():
        seen.assign_to(layers[path].inputs_quantizer)
    forget_compiled(model)
    return paths


def _is_matrix_product(network: keras.Model) -> Any:
    """Whether a layer multiplies every place of a map by one matrix."""
    gates = [layer for _, layer in named_parts(network) if isinstance(layer, SqueezeExcitation)]
    of_gates = {id(layer) for gate in gates for _, layer in named_parts(gate)}

    def check(layer: keras.layers.Layer) -> bool:
        if isinstance(layer, Conv):
            return tuple(layer.kernel_size) == (1, 1) and tuple(layer.strides) == (1, 1)
        return id(layer) not in of_gates

    return check


def _seen_ranges(
    network: keras.Model, layers: Mapping[str, Any], pictures: Any, batch_size: int
) -> dict[str, Range]:
    """The extremes of every layer's inputs."""
    ranges = {path: Range() for path in layers}
    with _watched({path: (layer, ranges[path]) for path, layer in layers.items()}):
        show(network, pictures, batch_size)
    if not any(seen.any for seen in ranges.values()):
        raise CompressionError(
            "static int8 needs pictures to see the ranges of activations and got none; give "
            "float[N, H, W, 3] or an iterable of batches"
        )
    for path, seen in ranges.items():
        if not seen.finite:
            raise CompressionError(f"activations that enter {path} are not finite")
    return ranges


@contextmanager
def _watched(places: Mapping[str, tuple[Any, Range]]) -> Iterator[None]:
    """Inside, each range widens to what enters its layer."""

    def watching(call: Any, seen: Range) -> Any:
        def watched_call(inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
            seen.widen(inputs)
            return call(inputs, *args, **kwargs)

        return watched_call

    layers: Iterable[tuple[Any, Range]] = places.values()
    try:
        for layer, seen in layers:
            object.__setattr__(layer, "call", watching(layer.call, seen))
        yield
    finally:
        for layer, _ in layers:
            layer.__dict__.pop("call", None)
