"""The exact GELU, spelled so that every exporter can read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from dl_techniques import kernels
from dl_techniques.typing import Tensor


@keras.saving.register_keras_serializable(package="dl_techniques")
def gelu(x: Tensor) -> Any:
    """Exact (erf) GELU, `0.5 * x * (1 + erf(x / sqrt(2)))`, any shape and float dtype.

    Not `keras.activations.gelu`: TensorFlow lowers that one to `Erfc`, which ONNX and CoreML
    converters do not know. On PyTorch it is PyTorch's own, which is one pass over memory, not five.

    Example:
        >>> import numpy as np
        >>> round(float(gelu(np.float32(1.0))), 4)
        0.8413

    Reference: Hendrycks and Gimpel, "Gaussian Error Linear Units", arXiv:1606.08415.
    """
    return kernels.gelu(x)


def get_activation(identifier: str | Callable[..., Any] | dict[str, Any] | None) -> Any:
    """Resolves an activation; the word "gelu" means the exact `gelu` of this module."""
    if identifier in ("gelu", "dl_techniques>gelu"):
        return gelu
    return keras.activations.get(identifier)


def serialize_activation(activation: Any) -> Any:
    """The inverse of `get_activation`, for `get_config`."""
    return "gelu" if activation is gelu else keras.activations.serialize(activation)
