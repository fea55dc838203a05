"""Dense layers in floating point, in inference, without Keras' operators around the product.

Keras computes a Dense or EinsumDense of any shape as an einsum and adds the bias afterwards. Where
`kernels.dense` is better than that and nothing is learned, both are one product of a matrix;
everywhere else these functions are the layers' own calls.
"""

from __future__ import annotations

import functools
import math

import keras
from keras import ops

from dl_techniques import kernels
from dl_techniques.typing import Tensor


def project_floats(layer: keras.layers.Layer, x: Tensor, with_gelu: bool = False) -> Tensor:
    """The same as `layer(x)`, or as `gelu(layer(x))`: float[..., K] -> float[..., N].

    Args:
        layer: Dense or EinsumDense, or anything that is called.
        x: what the layer takes.
        with_gelu: whether the exact GELU follows.
    """
    axes = contracted_axes(layer)
    plain = type(layer) in (keras.layers.Dense, keras.layers.EinsumDense)
    linear = getattr(layer, "activation", None) in (None, keras.activations.linear)
    if not axes or not _multiplies_floats(layer, x, plain and (linear or not with_gelu)):
        return kernels.gelu(layer(x)) if with_gelu else layer(x)
    dtype = layer.compute_dtype
    x, kernel = ops.cast(ops.convert_to_tensor(x), dtype), ops.cast(layer.kernel, dtype)
    outer, units = x.shape[: x.ndim - axes], kernel.shape[axes:]
    depth = math.prod(kernel.shape[:axes])
    bias = None
    if layer.bias is not None:
        bias = _shaped(_spread(ops.cast(layer.bias, dtype), units), (math.prod(units),))
    x, kernel = _shaped(x, (*outer, depth)), _shaped(kernel, (depth, math.prod(units)))
    outputs = _shaped(kernels.dense(x, kernel, bias, with_gelu), (*outer, *units))
    return outputs if linear else layer.activation(outputs)


def _spread(bias: Tensor, units: tuple[int, ...]) -> Tensor:
    return bias if tuple(bias.shape) == tuple(units) else ops.broadcast_to(bias, units)


def _shaped(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`x.reshape(shape)`, unless it is so already: every view takes a recording its time."""
    same = tuple(x.shape) == shape
    return x if same else ops.convert_to_tensor(x).reshape(shape)


def floats_to_vocabulary(embedding: keras.layers.Layer, x: Tensor) -> Tensor:
    """The same as `embedding(x, reverse=True)`: float[..., D] -> float[..., vocabulary].

    Args:
        embedding: ReversibleEmbedding.
        x: float[..., D].
    """
    # What an embedding of a mixed policy computes with depends on the layer around it.
    mixed = embedding.compute_dtype != embedding.variable_dtype
    plain = type(embedding).call is keras.layers.ReversibleEmbedding.call and not mixed
    if embedding.logit_soft_cap is not None or not _multiplies_floats(embedding, x, plain):
        return embedding(x, reverse=True)
    tied = embedding.tie_weights
    kernel = embedding.embeddings if tied else embedding.reverse_embeddings
    x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(kernel)
    dtype = embedding.reverse_dtype or keras.backend.result_type(x.dtype, kernel.dtype)
    x, kernel = ops.cast(x, dtype), ops.cast(kernel, dtype)
    if not kernels.takes_dense(x, dtype, bool(embedding.trainable_variables)):
        return embedding(x, reverse=True)
    return kernels.to_vocabulary(x, kernel) if tied else kernels.dense(x, kernel)


def contracted_axes(layer: keras.layers.Layer) -> int:
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


def _multiplies_floats(layer: keras.layers.Layer, x: Tensor, plain: bool) -> bool:
    """Whether a layer's floats may be multiplied by `kernels.dense`.

    Args:
        layer: the layer.
        x: its input.
        plain: whether its class is one whose call is known.
    """
    if not plain or isinstance(x, keras.KerasTensor):
        return False
    # Some methods of quantization put a `call` of their own in place to see what goes in.
    if layer.quantization_mode is not None or "call" in vars(layer):
        return False
    return kernels.takes_dense(x, layer.compute_dtype, bool(layer.trainable_variables))
