"""Conditional positional encoding: where a place is, told by its neighbours."""

from __future__ import annotations

from typing import Any

import keras

from dl_techniques.layers.convolution import DepthwiseConv
from dl_techniques.layers.folding import BranchesIntoConv, Fold
from dl_techniques.layers.reparameterization import SwitchableLayer


@keras.saving.register_keras_serializable(package="dl_techniques")
class ConditionalPositionalEncoding(SwitchableLayer):
    """x + depthwise 7x7 convolution of x, or that as one convolution: float[B,H,W,C] -> same.

    Args:
        kernel_size: int. Odd. Defaults to 7.
        reparameterized: bool. Start in inference form. Defaults to `False`.
        **kwargs: name, dtype.

    Example:
        >>> import numpy as np
        >>> tuple(ConditionalPositionalEncoding()(np.ones((1, 4, 4, 2), "float32")).shape[1:])
        (4, 4, 2)

    Reference: Chu et al., "Conditional Positional Encodings for Vision Transformers",
    arXiv:2102.10882.
    """

    def __init__(self, kernel_size: int = 7, reparameterized: bool = False, **kwargs: Any) -> None:
        super().__init__(inference_form=reparameterized, **kwargs)
        self.kernel_size = kernel_size
        self.create_parts()

    def folds(self) -> tuple[Fold, ...]:
        """x + conv(x) into `fused_conv`; both are one depthwise convolution with bias."""
        return (BranchesIntoConv("fused_conv", self.kernel_size, ("conv",), "conv", residual=True),)

    def create_parts(self) -> None:
        """Creates the one convolution under the name of the current form."""
        name = self.form_parts(self.inference_form)[0]
        setattr(self, name, DepthwiseConv(self.kernel_size, name=name, dtype=self.dtype_policy))

    def call(self, inputs: Any) -> Any:
        """Adds the encoding."""
        if self.inference_form:
            return self.fused_conv(inputs)
        return inputs + self.conv(inputs)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "reparameterized": self.inference_form,
        }
