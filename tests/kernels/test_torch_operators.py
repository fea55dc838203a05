"""Convolutions and GELU on PyTorch against Keras' own, with gradients, without copies."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import ops

from dl_techniques.kernels import pad_symmetrically
from dl_techniques.kernels.machine import runs_on_torch
from dl_techniques.kernels.torch_operators import (
    torch_conv,
    torch_dense,
    torch_depthwise_conv,
    torch_gelu,
)
from dl_techniques.layers.convolution import Conv, DepthwiseConv
from tests.helpers import Array, numbers, random_array, relative_difference

pytestmark = pytest.mark.skipif(keras.config.backend() != "torch", reason="PyTorch only")
DENSE = [(1, 1, 5), (1, 2, 5), (3, 1, 4), (3, 2, 8), (7, 2, 4)]
DEPTHWISE = [(3, 1, 1), (7, 1, 1), (7, 2, 2), (3, 2, 1)]


def keras_dense(x: Any, kernel: Any, bias: Any, stride: int) -> Any:
    padded = pad_symmetrically(x, kernel.shape[0])
    return ops.add(ops.conv(padded, kernel, stride, "valid", "channels_last"), bias)


def keras_depthwise(x: Any, kernel: Any, bias: Any, stride: int) -> Any:
    padded = pad_symmetrically(x, kernel.shape[0])
    return ops.add(ops.depthwise_conv(padded, kernel, stride, "valid", "channels_last"), bias)


def with_gradients(function: Any, arrays: list[Array], stride: int) -> list[Array]:
    """The outputs and the gradient of their weighted sum for each array."""
    import torch

    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
    outputs = function(*tensors, stride)
    weights = torch.from_numpy(random_array(*outputs.shape, seed=9))
    (outputs * weights).sum().backward()
    return [numbers(outputs), *(numbers(tensor.grad) for tensor in tensors)]


@pytest.mark.parametrize(("size", "stride", "filters"), DENSE)
def test_dense(size: int, stride: int, filters: int) -> None:
    arrays = [random_array(2, 9, 8, 6), random_array(size, size, 6, filters), random_array(filters)]
    ours, theirs = (with_gradients(f, arrays, stride) for f in (torch_conv, keras_dense))
    for left, right in zip(ours, theirs, strict=True):
        assert relative_difference(left, right) < 1e-5


@pytest.mark.parametrize(("size", "stride", "multiplier"), DEPTHWISE)
def test_depthwise(size: int, stride: int, multiplier: int) -> None:
    kernel = random_array(size, size, 6, multiplier)
    arrays = [random_array(2, 9, 8, 6), kernel, random_array(6 * multiplier)]
    ours, theirs = (
        with_gradients(f, arrays, stride) for f in (torch_depthwise_conv, keras_depthwise)
    )
    for left, right in zip(ours, theirs, strict=True):
        assert relative_difference(left, right) < 1e-5


def test_gelu() -> None:
    x = random_array(2, 3, 4, 5) * 6
    exact = 0.5 * x * (1.0 + numbers(ops.erf(x * 0.7071067811865476)))
    assert relative_difference(torch_gelu(x), exact) < 1e-6


def keras_dense_gelu(x: Any, kernel: Any, bias: Any, stride: int) -> Any:
    outputs = ops.add(ops.matmul(x, kernel), bias)
    return 0.5 * outputs * (1.0 + ops.erf(outputs * 0.7071067811865476))


def dense_gelu(x: Any, kernel: Any, bias: Any, stride: int) -> Any:
    return torch_dense(x, kernel, bias, with_gelu=True)


def test_dense_with_gelu() -> None:
    arrays = [random_array(2, 5, 4, 6), random_array(6, 7), random_array(7)]
    ours, theirs = (with_gradients(f, arrays, 1) for f in (dense_gelu, keras_dense_gelu))
    for left, right in zip(ours, theirs, strict=True):
        assert relative_difference(left, right) < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 1e-2)])
@pytest.mark.parametrize("shape", [(3, 8), (2, 5, 4, 8)])
@pytest.mark.parametrize("biased", [False, True])
def test_onednn_computes_the_same_without_gradients(
    dtype: str, tolerance: float, shape: tuple[int, ...], biased: bool
) -> None:
    import torch

    x, kernel = random_array(*shape) * 2, random_array(8, 9, seed=1)
    bias = random_array(9, seed=2) if biased else None
    given = [None if a is None else ops.cast(a, dtype) for a in (x, kernel, bias)]
    for with_gelu in (False, True):
        with torch.no_grad():
            got = torch_dense(*given, with_gelu=with_gelu)
        expected = x @ kernel + (0 if bias is None else bias)
        expected = numbers(torch_gelu(expected)) if with_gelu else expected
        assert got.dtype == getattr(torch, dtype)
        assert relative_difference(ops.cast(got, "float32"), expected) < tolerance


def test_a_feed_forward_network_asks_onednn_unless_it_is_exported_or_trained() -> None:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from dl_techniques.layers.conv_ffn import ConvFFN

    class Names(TorchDispatchMode):
        """Names of the operators that ran."""

        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            self.found.append(str(func))
            return func(*args, **(kwargs or {}))

    layer, x = ConvFFN(16), torch.from_numpy(random_array(1, 4, 4, 8))
    layer(x)
    with torch.no_grad(), Names() as inferring:
        expected = layer(x)
    with Names() as training:
        got = layer(x)
    with torch.no_grad():
        exported = torch.export.export(layer, (x,), strict=False)
    fused = "mkldnn._linear_pointwise.default"
    assert inferring.found.count(fused) == 2 and fused not in training.found
    assert fused not in str(exported.graph)
    assert relative_difference(got, numbers(expected)) < 1e-5


@pytest.mark.parametrize("layer", [Conv(6, 1), Conv(6, 3), DepthwiseConv(7)])
def test_maps_stay_as_they_lie(layer: Any) -> None:
    """Channels last in memory from one convolution to the next: the layers copy no map."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Copies(TorchDispatchMode):
        """Names of the operators that copy a tensor of four axes."""

        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            outputs = func(*args, **(kwargs or {}))
            name = func.__name__.split(".")[0]
            if name in ("clone", "_to_copy", "copy_", "constant_pad_nd", "contiguous"):
                self.found.append(name)
            return outputs

    x = torch.from_numpy(random_array(2, 8, 8, 6))
    layer(x)
    with torch.no_grad(), Copies() as copies:
        outputs = layer(x)
    assert outputs.is_contiguous() and copies.found == []


def test_layers_without_bias_and_with_activation() -> None:
    assert runs_on_torch()
    x = random_array(1, 5, 4, 3)
    for layer in (Conv(4, 3, use_bias=False), DepthwiseConv(3, use_bias=False)):
        plain = numbers(layer(x))
        layer.activation = keras.activations.relu
        assert relative_difference(layer(x), plain.clip(0)) < 1e-6
