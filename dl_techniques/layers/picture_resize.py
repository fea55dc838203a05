"""Size and scale of a picture inside a network, the same on every backend and runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques.typing import Shape, Tensor

CUBIC = -0.5
"""Of the cubic kernel: what Pillow's bicubic filter has."""


@keras.saving.register_keras_serializable(package="dl_techniques")
class PictureResize(keras.layers.Layer):
    """Antialiased bicubic resize: float[B, H, W, C] -> float[B, h, w, C].

    `keras.ops.image.resize` gives other pixels on each backend and becomes other operators in each
    exported file; two products with fixed matrices give one answer everywhere. The matrices are
    Pillow's: the kernel is stretched by the factor where a picture becomes smaller.

    Args:
        size: (h, w).
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Example:
        >>> import numpy as np
        >>> tuple(PictureResize((2, 3))(np.ones((1, 8, 9, 3), "float32")).shape[1:])
        (2, 3, 3)
    """

    def __init__(self, size: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        height, width = size
        self.size = (int(height), int(width))

    def build(self, input_shape: Shape) -> None:
        """Computes the two matrices; they are constants, no weights.

        Raises:
            ValueError: the input's size is open.
        """
        _, height, width, _ = input_shape
        if height is None or width is None:
            raise ValueError(f"{self.name} needs pictures of one size, got {tuple(input_shape)}")
        matrices = (resize_matrix(height, self.size[0]), resize_matrix(width, self.size[1]))
        object.__setattr__(self, "_matrices", matrices)
        self.built = True

    def call(self, images: Tensor) -> Tensor:
        """float[B, H, W, C] -> float[B, h, w, C]."""
        rows, columns = (ops.cast(matrix, images.dtype) for matrix in self._matrices)
        _, height, width, channels = images.shape
        flat = ops.matmul(rows, ops.reshape(images, (-1, height, width * channels)))
        return ops.matmul(columns, ops.reshape(flat, (-1, self.size[0], width, channels)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, h, w, C)."""
        return (input_shape[0], *self.size, input_shape[3])

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "size": list(self.size)}


@keras.saving.register_keras_serializable(package="dl_techniques")
class PixelScale(keras.layers.Layer):
    """`(x - mean) / std` of each colour: float[B, H, W, C] -> float[B, H, W, C].

    Keras' own layers for it ask for TensorFlow on every call, where that is kept out.

    Args:
        mean: of each colour.
        std: of each colour.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Example:
        >>> import numpy as np
        >>> tuple(PixelScale([0.5], [0.25])(np.ones((1, 2, 2, 1), "float32")).shape[1:])
        (2, 2, 1)
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))

    def call(self, images: Tensor) -> Tensor:
        """float[B, H, W, C] -> float[B, H, W, C]."""
        mean, scale = np.asarray(self.mean), 1 / np.asarray(self.std)
        scale, offset = scale.astype("float32"), (-mean * scale).astype("float32")
        return images * ops.cast(scale, images.dtype) + ops.cast(offset, images.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "mean": list(self.mean), "std": list(self.std)}


def resize_matrix(before: int, after: int) -> np.ndarray:
    """The weights of every pixel in every new one: float32[after, before], rows sum to one.

    Args:
        before: pixels of a side.
        after: pixels that it is to have.
    """
    scale = before / after
    stretch = max(scale, 1.0)
    centres = (np.arange(after) + 0.5) * scale
    distance = np.abs(np.arange(before)[None, :] + 0.5 - centres[:, None]) / stretch
    weights = _cubic(distance)
    return np.asarray(weights / weights.sum(1, keepdims=True), "float32")


def _cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel of distances, https://doi.org/10.1109/TASSP.1981.1163711, equation 15."""
    near = (CUBIC + 2) * x**3 - (CUBIC + 3) * x**2 + 1
    far = CUBIC * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
