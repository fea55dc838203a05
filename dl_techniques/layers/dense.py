"""Dense layers after `quantize("int8")`, with their integers multiplied as is fastest on a CPU.

Keras quantizes the input row by row, multiplies integers and scales back. Its torch backend turns
both factors into int32 first: four times the memory of the kernel for every token, and a product
without vector instructions; XLA and TensorFlow multiply integers slower than floats. The products
here are those of `kernels.int8_matmul`; the results are the same.

Layers that are not quantized go through `dense_float`.

Where the library traces and differentiates the same function, our products are taken
`without_gradients` alone: Keras' own way has gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

import keras
from keras import ops

from dl_techniques import kernels
from dl_techniques.compat.keras_layers import all_parts, integer_kernel, table_of
from dl_techniques.layers.dense_float import (
    contracted_axes,
    floats_to_vocabulary,
    project_floats,
)
from dl_techniques.typing import Tensor

Transposed = Mapping[int, Tensor]
_TRANSPOSED: ContextVar[Transposed | None] = ContextVar("transposed", default=None)


@contextmanager
def without_gradients(transposed: Transposed | None = None) -> Iterator[None]:
    """Promises that nothing is differentiated while this is open.

    Args:
        transposed: int8[N, K] by the `id` of the variable, as `kernels.transposed` makes them.
    """
    token = _TRANSPOSED.set(transposed or {})
    try:
        yield
    finally:
        _TRANSPOSED.reset(token)


def kernels_to_transpose(part: keras.layers.Layer) -> list[tuple[keras.Variable, int]]:
    """The int8 kernels of a model that a single row is faster through when they are transposed.

    Args:
        part: the model.

    Returns:
        Each variable, and how many of its first axes meet the input.
    """
    return list(_int8_kernels(part)) if kernels.prefers_transposed_rows() else []


def _int8_kernels(part: keras.layers.Layer) -> Iterator[tuple[keras.Variable, int]]:
    """The kernels of int8 that meet the input with their first axes, and how many axes that are."""
    for layer in filter(_is_int8, all_parts(part, include_self=True)):
        kernel = integer_kernel(layer) if contracted_axes(layer) else None
        if kernel is not None:
            yield kernel, contracted_axes(layer)
        elif isinstance(layer, keras.layers.ReversibleEmbedding) and not layer.tie_weights:
            yield layer.reverse_embeddings, 1


def lay_out_for_one_row(part: keras.layers.Layer) -> int:
    """Lays int8 kernels out in memory, in place, as a single row is multiplied fastest.

    Args:
        part: the model.

    Returns:
        How many kernels lie otherwise than before.
    """
    return sum(kernels.lay_by_units(kernel, axes) for kernel, axes in _int8_kernels(part))


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


def project_with_gelu(layer: keras.layers.Layer, x: Tensor) -> Tensor:
    """The same as `gelu(layer(x))`, in inference.

    Args:
        layer: Dense or EinsumDense, quantized or not.
        x: float[..., K].
    """
    if getattr(layer, "quantization_mode", None) is None:
        return project_floats(layer, x, with_gelu=True)
    return kernels.gelu(project(layer, x))


@runtime_checkable
class MultipliesBytes(Protocol):
    """A Dense whose rows and kernel may be multiplied as bytes."""

    activation: Any
    compute_dtype: str

    def byte_product(self, x: Tensor) -> Any:
        """The product for such rows; None where they are multiplied otherwise."""


def feed_forward(first: keras.layers.Layer, second: keras.layers.Layer, x: Tensor) -> Tensor:
    """The same as `second(gelu(first(x)))`, in inference: float[..., K] -> float[..., N].

    What goes from one layer to the other is bytes where both multiply bytes.

    Args:
        first: Dense, quantized or not.
        second: the same.
        x: float[..., K].
    """
    if isinstance(first, MultipliesBytes) and isinstance(second, MultipliesBytes):
        linear = first.activation in (None, keras.activations.linear)
        widening, narrowing = first.byte_product(x), second.byte_product(x)
        if linear and widening is not None and narrowing is not None:
            numbers = widening.bytes_of(x)
            hidden = widening(numbers, first.compute_dtype, with_gelu=True, following=narrowing)
            outputs = narrowing(hidden, second.compute_dtype)
            return outputs if second.activation is None else second.activation(outputs)
    return project(second, project_with_gelu(first, x))


def project_each(layers: Sequence[keras.layers.Layer], x: Tensor) -> list[Tensor]:
    """The same as `[layer(x) for layer in layers]`; where it is ours, `x` is quantized once.

    Args:
        layers: Dense or EinsumDense, quantized or not.
        x: float[..., K]; what all of them take.
    """
    axes = contracted_axes(layers[0])
    alike = all(contracted_axes(each) == axes for each in layers[1:])
    if not axes or not alike or not all(_is_ours(e, x, axes) for e in layers):
        return [project_floats(layer, x) for layer in layers]
    quantized = _quantize(layers[0], x, axes)
    return [_finish(layer, _product(layer, quantized, _integers(layer), layer.kernel_scale, axes))
            for layer in layers]  # fmt: skip


def project_to_vocabulary(embedding: keras.layers.Layer, x: Tensor) -> Tensor:
    """The same as `embedding(x, reverse=True)`: float[..., D] -> float[..., vocabulary].

    Args:
        embedding: ReversibleEmbedding, quantized or not.
        x: float[..., D].
    """
    tied = embedding.tie_weights
    if embedding.logit_soft_cap is not None or not _is_ours(embedding, x, 1):
        if _wants_gradient(embedding, x):
            return _straight_through(embedding, x)
        return floats_to_vocabulary(embedding, x)
    scale = embedding.embeddings_scale if tied else embedding.reverse_embeddings_scale
    quantized = _quantize(embedding, x, 1)
    return _product(embedding, quantized, _integers(embedding), scale, 1, tied)


def _wants_gradient(embedding: keras.layers.Layer, x: Tensor) -> bool:
    """Whether a quantized table may be differentiated through."""
    quantized = getattr(embedding, "quantization_mode", None) is not None
    promised = _TRANSPOSED.get() is not None or isinstance(x, keras.KerasTensor)
    return quantized and not promised and not getattr(embedding, "lora_enabled", False)


def _straight_through(embedding: keras.layers.Layer, x: Tensor) -> Tensor:
    """Logits of a quantized table, differentiated as if nothing were rounded.

    Keras (3.15) does so for Dense and EinsumDense, but not here: of its rounded input only the
    scale would get a gradient, and whatever learns below would learn noise.
    """
    cap = embedding.logit_soft_cap

    @ops.custom_gradient
    def logits(x: Tensor) -> Any:
        found = embedding(x, reverse=True)

        def gradient(*given: Tensor, upstream: Tensor | None = None) -> tuple[Tensor]:
            (arrived,) = given if upstream is None else (upstream,)
            if cap is not None:
                arrived = arrived * (1 - ops.square(found / cap))
            table = ops.cast(_floats_of(embedding), arrived.dtype)
            return (ops.cast(ops.matmul(arrived, table), x.dtype),)

        return found, gradient

    result: Tensor = logits(x)
    return result


def _floats_of(embedding: keras.layers.Layer) -> Tensor:
    """The quantized table of the logits: float[vocabulary, D]."""
    if embedding.tie_weights:
        rows: Tensor = embedding(ops.arange(embedding.input_dim))
        return rows
    # A row with a single 1 is rounded to itself, so its logits are a row of the table.
    single = embedding(ops.eye(embedding.output_dim, dtype=embedding.compute_dtype), reverse=True)
    if embedding.logit_soft_cap is not None:
        single = embedding.logit_soft_cap * ops.arctanh(single / embedding.logit_soft_cap)
    table: Tensor = ops.transpose(single)
    return table


def _is_int8(layer: keras.layers.Layer) -> bool:
    """Whether a layer multiplies its input, quantized row by row, with int8, and nothing else."""
    return (
        getattr(layer, "quantization_mode", None) == "int8"
        and isinstance(layer.inputs_quantizer, keras.quantizers.AbsMaxQuantizer)
        and not getattr(layer, "lora_enabled", False)
    )


def _integers(layer: keras.layers.Layer) -> Any:
    """The int8 kernel of a layer that `_is_int8`, or an embedding's int8 table."""
    if isinstance(layer, keras.layers.ReversibleEmbedding):
        return table_of(layer) if layer.tie_weights else layer.reverse_embeddings
    return integer_kernel(layer)


def _is_ours(layer: keras.layers.Layer, x: Tensor, axes: int) -> bool:
    """Whether there is a faster way than the layer's own, and no gradient is wanted.

    Args:
        layer: the layer; some kinds of quantization leave it without a kernel.
        x: its input.
        axes: how many last axes of the input meet the kernel.
    """
    if not _is_int8(layer) or isinstance(x, keras.KerasTensor):
        return False
    kernel, transposed = _integers(layer), _TRANSPOSED.get()
    table = isinstance(layer, keras.layers.ReversibleEmbedding)
    return kernels.multiplies_integers(
        x,
        kernel,
        alone=math.prod(size or 0 for size in x.shape[: len(x.shape) - axes]) == 1,
        transposed=(table and layer.tie_weights) or id(kernel) in (transposed or {}),
        table=table,
        learns=transposed is None,
    )


def _quantize(
    layer: keras.layers.Layer, x: Tensor, axes: int
) -> tuple[Tensor, Tensor, Sequence[Any]]:
    """`AbsMaxQuantizer`, row by row.

    Returns:
        [rows, K] of whole numbers, float[rows, 1] to divide by, and the shape that `rows` stands
        for.
    """
    quantizer = layer.inputs_quantizer
    x = ops.cast(ops.convert_to_tensor(x), layer.compute_dtype)
    outer = ops.shape(x)[: len(x.shape) - axes]
    x = ops.reshape(x, (-1, math.prod(x.shape[len(x.shape) - axes :])))
    return (*kernels.quantize_rows(x, quantizer.value_range, quantizer.epsilon), outer)


def _product(
    layer: keras.layers.Layer,
    quantized: tuple[Tensor, Tensor, Sequence[Any]],
    variable: keras.Variable,
    kernel_scale: Any,
    axes: int,
    tied: bool = False,
) -> Tensor:
    """Multiplies and scales back, in the order of Keras."""
    numbers, scale, outer = quantized
    kernel, kernel_scale = ops.convert_to_tensor(variable), ops.convert_to_tensor(kernel_scale)
    units = kernel.shape[:1] if tied else kernel.shape[axes:]
    units_first = kernel if tied else (_TRANSPOSED.get() or {}).get(id(variable))
    if units_first is not None:
        sums = kernels.int8_matmul(numbers, units_first, transposed=True)
    else:
        sums = kernels.int8_matmul(numbers, ops.reshape(kernel, (numbers.shape[1], -1)))
    outputs = ops.cast(sums, layer.compute_dtype)
    outputs = kernels.rescale(outputs, scale * ops.reshape(kernel_scale, (1, -1)))
    return ops.reshape(outputs, (*outer, *units))


def _finish(layer: keras.layers.Layer, outputs: Tensor) -> Tensor:
    """Bias and activation, as far as the layer has them."""
    if layer.bias is not None:
        outputs = outputs + ops.convert_to_tensor(layer.bias)
    return outputs if layer.activation is None else layer.activation(outputs)
