"""Dense layers after `quantize("int8")`, with their integers multiplied as is fastest on a CPU.

Keras quantizes the input row by row, multiplies integers and scales back. Its torch backend turns
both factors into int32 first: four times the memory of the kernel for every token, and a product
without vector instructions; XLA and TensorFlow multiply integers slower than floats. The products
here are those of `integer_sums`; the results are the same, see there.

Layers that are not quantized go through `float_projection`.

On TensorFlow and JAX that is done `without_gradients` alone: Keras' own way has gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

from dl_techniques.kernels.int8_sums import (
    float_sums,
    multiplies_bytes_fast,
    runs_on_cpu,
    torch_sums,
)
from dl_techniques.kernels.torch_operators import runs_on_torch
from dl_techniques.layers.activations import gelu
from dl_techniques.layers.dense_float import (
    contracted_axes,
    floats_to_vocabulary,
    project_floats,
)

Tensor = Any
Turned = Mapping[int, Tensor]
_TURNED: ContextVar[Turned | None] = ContextVar("turned", default=None)


@contextmanager
def without_gradients(turned: Turned | None = None) -> Iterator[None]:
    """Promises that nothing is differentiated while this is open.

    Args:
        turned: int8[N, K] by the `id` of the variable, kernels as `turn` makes them.
    """
    token = _TURNED.set(turned or {})
    try:
        yield
    finally:
        _TURNED.reset(token)


def kernels_to_turn(part: keras.layers.Layer) -> list[tuple[keras.Variable, int]]:
    """The int8 kernels of a model that a single row is faster through when they are turned.

    Args:
        part: the model.

    Returns:
        Each variable, and how many of its first axes meet the input; none but on JAX's CPU.
    """
    if keras.config.backend() != "jax" or not runs_on_cpu():
        return []
    return list(_int8_kernels(part))


def _int8_kernels(part: keras.layers.Layer) -> Iterator[tuple[keras.Variable, int]]:
    """The kernels of int8 that meet the input with their first axes, and how many axes that are."""
    for layer in filter(_is_int8, [part, *part._flatten_layers(include_self=False)]):
        if contracted_axes(layer) and hasattr(layer, "_kernel"):
            yield layer._kernel, contracted_axes(layer)
        elif isinstance(layer, keras.layers.ReversibleEmbedding) and not layer.tie_weights:
            yield layer.reverse_embeddings, 1


def turn(kernel: Tensor, axes: int) -> Tensor:
    """int8[..., ...] -> int8[N, K], K being the product of the first axes."""
    rows = math.prod(kernel.shape[:axes])
    return ops.transpose(ops.reshape(kernel, (rows, -1)))


def lay_out_for_one_row(part: keras.layers.Layer) -> int:
    """Turns int8 kernels in memory, in place, where PyTorch multiplies a single row faster so.

    Shapes and numbers stay, strides change: a unit's weights lie side by side. On processors with
    vector instructions for bytes (see `integer_sums`) a row times 896 x 4864 then takes two thirds
    of the time, many rows as long as before.

    Args:
        part: the model.

    Returns:
        How many kernels lie otherwise than before; none but on PyTorch's CPU.
    """
    if not runs_on_torch() or not multiplies_bytes_fast():
        return 0
    kernels = [(variable.value, axes) for variable, axes in _int8_kernels(part)]
    others = [(kernel, axes) for kernel, axes in kernels if not _lies_turned(kernel, axes)]
    for kernel, axes in others:
        rows = math.prod(kernel.shape[:axes])
        turned = kernel.data.reshape(rows, -1).T.contiguous()
        kernel.data = turned.T.reshape(kernel.shape)
    return len(others)


def _lies_turned(kernel: Tensor, axes: int) -> bool:
    """Whether a kernel is elsewhere than on the CPU, or lies by its units already."""
    flat = kernel.data.reshape(math.prod(kernel.shape[:axes]), -1)
    return kernel.device.type != "cpu" or flat.T.is_contiguous()


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
    return gelu(project(layer, x))


def feed_forward(first: keras.layers.Layer, second: keras.layers.Layer, x: Tensor) -> Tensor:
    """The same as `second(gelu(first(x)))`, in inference: float[..., K] -> float[..., N].

    What goes from one layer to the other is bytes where both multiply bytes.

    Args:
        first: Dense, quantized or not.
        second: the same.
        x: float[..., K].
    """
    if all(hasattr(layer, "byte_product") for layer in (first, second)):
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
    if not axes or not alike or not all(_is_ours(e, "_kernel", x, axes) for e in layers):
        return [project_floats(layer, x) for layer in layers]
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
    if embedding.logit_soft_cap is not None or not _is_ours(embedding, name, x, 1, tied):
        return floats_to_vocabulary(embedding, x)
    scale = embedding.embeddings_scale if tied else embedding.reverse_embeddings_scale
    quantized = _quantize(embedding, x, 1)
    return _product(embedding, quantized, getattr(embedding, name), scale, 1, tied)


def _is_int8(layer: keras.layers.Layer) -> bool:
    """Whether a layer multiplies its input, quantized row by row, with int8, and nothing else."""
    return (
        getattr(layer, "quantization_mode", None) == "int8"
        and isinstance(layer.inputs_quantizer, keras.quantizers.AbsMaxQuantizer)
        and not getattr(layer, "lora_enabled", False)
    )


def _is_ours(layer: Any, name: str, x: Tensor, axes: int, tied: bool = False) -> bool:
    """Whether there is a faster way than the layer's own, and no gradient is wanted.

    Args:
        layer: the layer; some kinds of quantization leave it without a kernel.
        name: of the attribute that holds the int8 kernel.
        x: its input.
        axes: how many last axes of the input meet the kernel.
        tied: whether the kernel is a table, int8[N, K].
    """
    if not _is_int8(layer) or isinstance(x, keras.KerasTensor):
        return False
    if runs_on_torch():
        import torch

        x, kernel = ops.convert_to_tensor(x), ops.convert_to_tensor(getattr(layer, name))
        on_cpu = x.device.type == "cpu" and kernel.device.type == "cpu"
        return on_cpu and not (torch.is_grad_enabled() and x.requires_grad)
    turned = _TURNED.get()
    if turned is None or not runs_on_cpu():
        return False
    alone = math.prod(size or 0 for size in x.shape[: len(x.shape) - axes]) == 1
    if keras.config.backend() == "jax":
        return alone and (tied or id(getattr(layer, name)) in turned)
    # A float copy of a whole vocabulary costs TensorFlow more than it gains.
    return not alone and isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense))


def _quantize(layer: Any, x: Tensor, axes: int) -> tuple[Tensor, Tensor, Sequence[Any]]:
    """`AbsMaxQuantizer`, in PyTorch's own operators there: a third of those of `keras.ops`.

    Returns:
        int8[rows, K] (floats of the same numbers on JAX), float[rows, 1] to divide by, and the
        shape that `rows` stands for.
    """
    quantizer = layer.inputs_quantizer
    x = ops.cast(ops.convert_to_tensor(x), layer.compute_dtype)
    outer = ops.shape(x)[: len(x.shape) - axes]
    x = ops.reshape(x, (-1, math.prod(x.shape[len(x.shape) - axes :])))
    if keras.config.backend() == "jax":
        return (*_quantize_apart(quantizer, x), outer)
    if not runs_on_torch():
        return (*quantizer(x, axis=-1), outer)
    low, high = quantizer.value_range
    # Not `high / ...`, which PyTorch rounds twice.
    scale = ops.divide(high, x.abs().amax(dim=1, keepdim=True) + quantizer.epsilon)
    return ops.cast((x * scale).round_().clamp_(low, high), "int8"), scale, outer


def _quantize_apart(quantizer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """A row's numbers as floats, in a branch of their own.

    XLA would otherwise compute them inside the product, once for each unit, which takes longer than
    the product itself. Barriers do not keep it from that; a branch does.
    """

    def quantized() -> tuple[Tensor, Tensor]:
        numbers, scale = quantizer(x, axis=-1)
        return ops.cast(numbers, "float32"), ops.cast(scale, x.dtype)

    def nothing() -> tuple[Tensor, Tensor]:
        return ops.zeros(x.shape, "float32"), ops.ones((len(x), 1), x.dtype)

    numbers, scale = ops.cond(ops.any(x != 0), quantized, nothing)
    return numbers, scale


def _product(
    layer: Any,
    quantized: tuple[Tensor, Tensor, Sequence[Any]],
    variable: Any,
    kernel_scale: Any,
    axes: int,
    tied: bool = False,
) -> Tensor:
    """Multiplies and scales back, in the order of Keras."""
    numbers, scale, outer = quantized
    kernel, kernel_scale = ops.convert_to_tensor(variable), ops.convert_to_tensor(kernel_scale)
    units = kernel.shape[:1] if tied else kernel.shape[axes:]
    turned = (_TURNED.get() or {}).get(id(variable))
    if runs_on_torch():
        sums = torch_sums(numbers, kernel.T if tied else kernel.reshape(numbers.shape[1], -1))
    elif tied or turned is not None:
        sums = float_sums(numbers, kernel if tied else turned, turned=True)
    else:
        sums = float_sums(numbers, ops.reshape(kernel, (numbers.shape[1], -1)))
    outputs = ops.cast(sums, layer.compute_dtype)
    divisor = scale * ops.reshape(kernel_scale, (1, -1))
    if runs_on_torch() and divisor.dtype == outputs.dtype:
        outputs = outputs.div_(divisor)  # in place: a third less time for large maps
    else:
        outputs = outputs / divisor
    return ops.reshape(outputs, (*outer, *units))


def _finish(layer: Any, outputs: Tensor) -> Tensor:
    """Bias and activation, as far as the layer has them."""
    if layer.bias is not None:
        outputs = outputs + ops.convert_to_tensor(layer.bias)
    return outputs if layer.activation is None else layer.activation(outputs)
