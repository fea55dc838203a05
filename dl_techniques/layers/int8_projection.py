"""Dense layers after `quantize("int8")`, with their integers multiplied as bytes on PyTorch's CPU.

Keras quantizes the input row by row, multiplies integers and scales back. Its torch backend turns
both factors into int32 first: four times the memory of the kernel for every token, and a product
without vector instructions. `torch._int_mm` multiplies the bytes as they lie (VNNI where the
processor has it). Both sums are exact integers, so the results are the same to the last bit.
"""

from __future__ import annotations

import functools
import math
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
    axes = _contracted(layer)
    if axes == 0 or not _multiplies_bytes(layer, layer._kernel, x):
        return layer(x)
    outputs = _product(layer, x, layer._kernel, layer.kernel_scale, axes)
    if layer.bias is not None:
        outputs = ops.add(outputs, layer.bias)
    return outputs if layer.activation is None else layer.activation(outputs)


def project_to_vocabulary(embedding: keras.layers.Layer, x: Tensor) -> Tensor:
    """The same as `embedding(x, reverse=True)`: float[..., D] -> float[..., vocabulary].

    Args:
        embedding: ReversibleEmbedding, quantized or not.
        x: float[..., D].
    """
    tied = embedding.tie_weights
    table = embedding._embeddings if tied else embedding.reverse_embeddings
    if embedding.logit_soft_cap is not None or not _multiplies_bytes(embedding, table, x):
        return embedding(x, reverse=True)
    if tied:
        columns = ops.convert_to_tensor(table).T
        return _product(embedding, x, columns, embedding.embeddings_scale, 1)
    return _product(embedding, x, table, embedding.reverse_embeddings_scale, 1)


def _multiplies_bytes(layer: keras.layers.Layer, kernel: Any, x: Tensor) -> bool:
    """Whether the layer's product is one of int8 on PyTorch's CPU, and nothing else is wanted."""
    if not runs_on_torch() or layer.quantization_mode != "int8":
        return False
    if layer.inputs_quantizer is None or getattr(layer, "lora_enabled", False):
        return False
    if isinstance(x, keras.KerasTensor):
        return False
    import torch

    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
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


def _product(layer: Any, x: Tensor, kernel: Any, kernel_scale: Any, axes: int) -> Tensor:
    """Quantizes, multiplies, scales back, in the order of Keras."""
    import torch

    x = ops.cast(ops.convert_to_tensor(x), layer.compute_dtype)
    kernel, kernel_scale = ops.convert_to_tensor(kernel), ops.convert_to_tensor(kernel_scale)
    rows, columns = x.shape[: x.ndim - axes], kernel.shape[axes:]
    inner = math.prod(kernel.shape[:axes])
    bytes_, scale = layer.inputs_quantizer(x, axis=tuple(range(x.ndim - axes, x.ndim)))
    sums = torch._int_mm(bytes_.reshape(-1, inner), kernel.reshape(inner, -1))
    scale = ops.multiply(scale.reshape(-1, 1), kernel_scale.reshape(1, -1))
    return ops.divide(ops.cast(sums, layer.compute_dtype), scale).reshape(*rows, *columns)
