"""Private and experimental names of PyTorch, JAX and TensorFlow: what breaks without each."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.compat import exporters, jax_own, torch_own
from tests.helpers import numbers, random_array


def on(backend: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(keras.config.backend() != backend, reason=f"names of {backend}")


@on("torch")
def test_products_of_onednn() -> None:
    """Without: `predict` on PyTorch fails, or falls to half its speed."""
    import torch

    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    x, kernel, bias = (torch.from_numpy(random_array(*s)) for s in ((3, 4), (5, 4), (5,)))
    plain = x @ kernel.T + bias
    got = torch_own.linear_with_activation(x, kernel, bias, "none")
    np.testing.assert_allclose(numbers(got), numbers(plain), atol=1e-6)
    got = torch_own.linear_with_activation(x, kernel, bias, "gelu")
    np.testing.assert_allclose(numbers(got), numbers(torch.nn.functional.gelu(plain)), atol=1e-6)
    assert torch_own.multiplies_bfloat16() in (True, False)
    assert torch_own.multiplies_vnni() in (True, False)


@on("torch")
def test_products_of_integers() -> None:
    """Without: int8 on PyTorch fails."""
    import torch

    x = torch.arange(-8, 8, dtype=torch.int8).reshape(2, 8)
    product = torch_own.multiply_int8(x, x.T.contiguous())
    assert product.dtype == torch.int32
    np.testing.assert_array_equal(numbers(product), numbers(x) @ numbers(x).T)
    if not torch_own.multiplies_vnni():
        pytest.skip("this processor multiplies no bytes")
    rows = torch.tensor([[3, 1, 2, 0]], dtype=torch.uint8)
    packed = torch_own.pack_for_bytes(torch.ones(2, 4, dtype=torch.int8))
    got = torch_own.multiply_bytes(
        rows, (0.5, 1), packed, torch.ones(2), torch.zeros(2, dtype=torch.int32),
        None, (1.0, 0), torch.float32, "none",
    )  # fmt: skip
    np.testing.assert_allclose(numbers(got), [[1.0, 1.0]])  # (3 + 1 + 2 + 0 - 4 * 1) / 2


@on("torch")
def test_writes_are_counted() -> None:
    """Without: recordings and packed kernels go on with weights that were replaced."""
    import torch

    x = torch.zeros(2)
    before = torch_own.version_of(x)
    x.add_(1)
    assert torch_own.version_of(x) > before


@on("torch")
def test_operators_are_seen() -> None:
    """Without: nothing can be recorded, and a token takes twice the time."""
    import torch

    from dl_techniques.compat.torch_dispatch import TorchDispatchMode, tree_map_only

    seen = []

    class Names(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:  # type: ignore[no-untyped-def]
            seen.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with Names():
        torch.ones(2) + 1
    assert "add.Tensor" in seen
    assert tree_map_only(int, lambda n: n + 1, [1, "a"]) == [2, "a"]


@on("jax")
def test_calls_stay_calls() -> None:
    """Without: depthwise convolutions in bfloat16 compute every sum four times."""
    import jax

    def function(x: jax.Array) -> jax.Array:
        with jax_own.not_inlined():
            return jax.jit(lambda y: y * 2)(x)

    assert 'inlineable = "false"' in jax.jit(function).lower(1.0).as_text()
    jax_own.forget_program_folder()


@on("tensorflow")
def test_exporters() -> None:
    """Without: ONNX files fail under NumPy 2, and a refused network is a traceback."""
    exporters.correct_tf2onnx()
    assert issubclass(exporters.converter_error(), Exception)
