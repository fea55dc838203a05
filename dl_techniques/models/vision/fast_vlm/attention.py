"""Attention over the places of a feature map."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from dl_techniques.layers.attention_kinds import attend, check_kind
from dl_techniques.layers.dense import project
from dl_techniques.layers.freezing import LayerOfParts
from dl_techniques.layers.initializers import HostTruncatedNormal
from dl_techniques.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="dl_techniques")
class Attention(LayerOfParts):
    """Multi-head self-attention over the places of a map: float[B, H, W, C] -> same.

    Places are tokens in row-major order; in NHWC no transpose is needed around it.

    Args:
        num_heads: int. Divides C.
        use_qkv_bias: bool. Defaults to `False`.
        dropout_rate: float. After the output projection. Defaults to 0.
        kind: str. Which places look at which, see `layers.attention_kinds`. The weights are the
            same for all. Defaults to "full".
        extent: int. Side of a window (8) or of a cell (2), in places.
        **kwargs: name, dtype.

    Raises:
        ValueError: C is no multiple of `num_heads`, or an unknown kind.

    Example:
        >>> import numpy as np
        >>> tuple(Attention(2)(np.ones((1, 4, 3, 8), "float32")).shape[1:])
        (4, 3, 8)

    Reference: Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, section 3.2.
    """

    def __init__(
        self,
        num_heads: int,
        use_qkv_bias: bool = False,
        dropout_rate: float = 0.0,
        kind: str = "full",
        extent: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind, self.extent = kind, extent
        self._side = check_kind(kind, extent)
        self.num_heads, self.use_qkv_bias = num_heads, use_qkv_bias
        self.dropout_rate = dropout_rate
        self.dropout = keras.layers.Dropout(dropout_rate, name="dropout", dtype=self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        """Creates `qkv` (first third q, second k, last v; heads contiguous) and `proj`."""
        channels = int(input_shape[-1] or 0)
        if channels % self.num_heads:
            raise ValueError(
                f"{self.name}: {channels} channels cannot be split into {self.num_heads} heads; "
                "choose num_heads that divides them"
            )
        init = HostTruncatedNormal()
        self.qkv = keras.layers.Dense(
            3 * channels, use_bias=self.use_qkv_bias, kernel_initializer=init, name="qkv",
            dtype=self.dtype_policy,
        )  # fmt: skip
        self.proj = keras.layers.Dense(
            channels, kernel_initializer=init, name="proj", dtype=self.dtype_policy
        )
        self.qkv.build(input_shape)
        self.proj.build(input_shape)

    def call(self, inputs: Tensor, training: bool | None = None) -> Any:
        """Every place looks at the places that `kind` lets it see."""
        batch, height, width, channels = ops.shape(inputs)
        heads = (batch, height, width, self.num_heads, channels // self.num_heads)
        # Split first, then reshape: LiteRT's slice takes at most five axes.
        q, k, v = (ops.reshape(x, heads) for x in ops.split(project(self.qkv, inputs), 3, axis=-1))
        attended = attend(q, k, v, self.kind, self._side)
        outputs = project(self.proj, ops.reshape(attended, (batch, height, width, channels)))
        return self.dropout(outputs, training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "use_qkv_bias": self.use_qkv_bias,
            "dropout_rate": self.dropout_rate,
            "kind": self.kind,
            "extent": self.extent,
        }
