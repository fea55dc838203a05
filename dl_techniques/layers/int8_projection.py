"""Dense layers after `quantize("int8")`, with their integers multiplied as bytes on PyTorch's CPU.

Keras quantizes the input row by row, multiplies integers and scales back. Its torch backend turns
both factors into int32 first: four times the memory of the kernel for every token, and a product
without vector instructions. `torch._int_mm` multiplies the bytes as they lie (VNNI where the
processor has it). Both sums are exact integers, so the results are the same to the last bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from dl_techniques.layers.torch_kernels import runs_on_torch

Tensor = Any


def project(layer: keras.layers.Layer, x: Tensor) -> Tensor:
    """The same as `layer(x)`, in inference.

    Args:
        layer: Dense or EinsumDense, quantized or not.
        x: float[..., K]; what the layer takes.

    Returns:
        float[..., N]; what the layer gives.

    Example:
        >>> import numpy as np
        >>> dense = keras.layers.Dense(4)
        >>> dense.build((None, 8))
        >>> dense.quantize("int8")
        >>> project(dense, np.ones((2, 3, 8), "float32")).shape[-1]
        4
    """
    return project_each((layer,), x)[0]


def project_each(layers: Sequence[keras.layers.Layer], x: Tensor) -> list[Tensor]:
    """The same as `[layer(x) for layer in layers]`; as bytes, `x` is quantized once for all.

    Args:
        layers: Dense or EinsumDense, quantized or not.
        x: float[..., K]; what all of them take.
    """
    axes = _contracted(layers[0])
    alike = all(_contracted(each) == axes for each in layers[1:])
    if not axes or not alike or not all(_multiplies_bytes(e, "_kernel", x) for e in layers):
        return [layer(x) for layer in layers]
    quantized = _quantize(layers[0], x, axes)
    return [_finish(layer, _product(layer, quantized, layer._kernel, layer.kernel_scale, axes))
            for layer in layers]  # fmt: skip


def project_to_vocabulary(embedding: keras.layers.Layer, x: Tensor) -> Tensor:
    """The same as `embedding(x, reverse=True)`: float[..., D] -> float[..., vocabulary].

    Args:
        embedding: ReversibleEmbedding, quantized or not.
        x: float[..., D].
    """
    tied = embedding.tie_weights
    name = "_embeddings" if tied else "reverse_embeddings"
    if embedding.logit_soft_cap is not None or not _multiplies_bytes(embedding, name, x):
        return embedding(x, reverse=True)
    table = ops.convert_to_tensor(getattr(embedding, name))
    scale = embedding.embeddings_scale if tied else embedding.reverse_embeddings_scale
    quantized = _quantize(embedding, x, 1)
    return _product(embedding, quantized, table.T if tied else table, scale, 1)


def _multiplies_bytes(layer: keras.layers.Layer, name: str, x: Tensor) -> bool:
    """Whether the layer's product is one of int8 on PyTorch's CPU, and nothing else is wanted.

    Args:
        layer: the layer; some kinds of quantization leave it without a kernel.
        name: of the attribute that holds the int8 kernel.
        x: its input.
    """
    if not runs_on_torch() or layer.quantization_mode != "int8":
        return False
    if not isinstance(layer.inputs_quantizer, keras.quantizers.AbsMaxQuantizer):
        return False
    if getattr(layer, "lora_enabled", False) or isinstance(x, keras.KerasTensor):
        return False
    import torch

    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(getattr(layer, name))
    on_cpu = x.device.type == "cpu" and kernel.device.type == "cpu"
    return on_cpu and not (torch.is_grad_enabled() and x.requires_grad)


def _contracted(layer: keras.layers.Layer) -> int:
    """How many last axes of the input meet the first ones of the kernel; 0 if it is otherwise."""
    if isinstance(layer, keras.layers.EinsumDense):
        return _contracted_by(layer.equation)
    return 1 if isinstance(layer, keras.layers.Dense) else 0


@functools.cache
def _contracted_by(equation: str) -> int:
    inputs, rest = equation.replace(" ", "").split(",")
    kernel, outputs = rest.split("->")
    for axes in range(1, len(kernel)):
        if inputs[-axes:] == kernel[:axes] and outputs == inputs[:-axes] + kernel[axes:]:
            return axes
    return 0


def _quantize(layer: Any, x: Tensor, axes: int) -> tuple[Tensor, Tensor, Sequence[int]]:
    """`AbsMaxQuantizer` in PyTorch's own operators, a third of those of `keras.ops`.

    Returns:
        int8[rows, K], float[rows, 1] to divide by, and the shape that `rows` stands for.
    """
    quantizer = layer.inputs_quantizer
    low, high = quantizer.value_range
    x = ops.cast(ops.convert_to_tensor(x), layer.compute_dtype)
    outer = x.shape[: x.ndim - axes]
    x = x.reshape(-1, math.prod(x.shape[x.ndim - axes :]))
    # Not `high / ...`, which PyTorch rounds twice.
    scale = ops.divide(high, x.abs().amax(dim=1, keepdim=True) + quantizer.epsilon)
    return ops.cast((x * scale).round().clamp(low, high), "int8"), scale, outer


def _product(
    layer: Any,
    quantized: tuple[Tensor, Tensor, Sequence[int]],
    kernel: Any,
    kernel_scale: Any,
    axes: int,
) -> Tensor:
    """Multiplies and scales back, in the order of Keras."""
    import torch

    numbers, scale, outer = quantized
    kernel, kernel_scale = ops.convert_to_tensor(kernel), ops.convert_to_tensor(kernel_scale)
    sums = torch._int_mm(numbers, kernel.reshape(numbers.shape[1], -1))
    outputs = ops.cast(sums, layer.compute_dtype) / (scale * kernel_scale.reshape(1, -1))
    return outputs.reshape(*outer, *kernel.shape[axes:])


def _finish(layer: Any, outputs: Tensor) -> Tensor:
    """Bias and activation, as far as the layer has them."""
    if layer.bias is not None:
        outputs = outputs + ops.convert_to_tensor(layer.bias)
    return outputs if layer.activation is None else layer.activation(outputs)
