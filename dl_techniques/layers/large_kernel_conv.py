"""The large-kernel convolution and the patch embedding (downsample) built on it."""

from __future__ import annotations

from typing import Any

import keras

from dl_techniques.layers.activations import gelu
from dl_techniques.layers.folding import BranchesIntoConv, Fold
from dl_techniques.layers.freezing import LayerOfParts
from dl_techniques.layers.mobile_one_block import ConvNorm, MobileOneBlock, convolution
from dl_techniques.layers.reparameterization import Reparameterizable, SwitchableLayer
from dl_techniques.layers.squeeze_excitation import SqueezeExcitation
from dl_techniques.typing import Shape


@keras.saving.register_keras_serializable(package="dl_techniques")
class LargeKernelConv(SwitchableLayer):
    """Depthwise 7x7 plus 3x3 branch, SE, GELU: float[B, H, W, C] -> float[B, H', W', filters].

    Args:
        filters: int. A multiple of C.
        kernel_size: int. Odd. Defaults to 7.
        small_kernel_size: int. Odd, at most `kernel_size`. Defaults to 3.
        strides: int. Defaults to 2.
        use_se: bool. SE of ratio 1/4, rounded to 8. Defaults to `False`.
        use_activation: bool. Exact GELU at the end. Defaults to `True`.
        reparameterized: bool. Start in inference form. Defaults to `False`.
        **kwargs: name, dtype.

    Raises:
        ValueError: `filters` is no multiple of the input's channels.

    Example:
        >>> import numpy as np
        >>> tuple(LargeKernelConv(8)(np.ones((1, 8, 8, 4), "float32")).shape[1:])
        (4, 4, 8)

    Reference: Vasu et al., "FastViT", arXiv:2303.14189, section 3.3; Ding et al., "Scaling Up
    Your Kernels to 31x31", arXiv:2203.06717.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 7,
        small_kernel_size: int = 3,
        strides: int = 2,
        use_se: bool = False,
        use_activation: bool = True,
        reparameterized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(inference_form=reparameterized, **kwargs)
        self.filters, self.kernel_size, self.strides = filters, kernel_size, strides
        self.small_kernel_size = small_kernel_size
        self.use_se, self.use_activation = use_se, use_activation
        self.se = (
            SqueezeExcitation(0.25, divisor=8, name="se", dtype=self.dtype_policy)
            if use_se
            else None
        )
        self._channels = 0

    def folds(self) -> tuple[Fold, ...]:
        """Both branches into `fused_conv`."""
        branches = ("large_conv", "small_conv")
        return (BranchesIntoConv("fused_conv", self.kernel_size, branches, "large_conv"),)

    def build(self, input_shape: Shape) -> None:
        """Creates and builds the current form."""
        self._channels = int(input_shape[-1] or 0)
        self.create_parts()
        super().build(input_shape)
        if self.se is not None:
            self.se.build(self.compute_output_shape(input_shape))

    def create_parts(self) -> None:
        """Creates the two branches or the one convolution; needs the input's channels."""
        if not self._channels:
            return
        policy = self.dtype_policy
        if self.inference_form:
            self.fused_conv = convolution(
                self.filters, self.kernel_size, self.strides, True, self._channels,
                use_bias=True, name="fused_conv", dtype=policy,
            )  # fmt: skip
            return
        self.large_conv = ConvNorm(
            self.filters, self.kernel_size, self.strides, True, name="large_conv", dtype=policy
        )
        self.small_conv = ConvNorm(
            self.filters, self.small_kernel_size, self.strides, True, name="small_conv",
            dtype=policy,
        )  # fmt: skip

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Sum of both branches (or the fused convolution), SE, GELU."""
        if self.inference_form:
            outputs = self.fused_conv(inputs)
        else:
            outputs = self.large_conv(inputs, training=training)
            outputs = outputs + self.small_conv(inputs, training=training)
        if self.se is not None:
            outputs = self.se(outputs)
        return gelu(outputs) if self.use_activation else outputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """float[B, ceil(H / s), ceil(W / s), filters]."""
        batch, *sides, _ = input_shape
        height, width = (None if side is None else -(-side // self.strides) for side in sides)
        return (batch, height, width, self.filters)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "small_kernel_size": self.small_kernel_size,
            "strides": self.strides,
            "use_se": self.use_se,
            "use_activation": self.use_activation,
            "reparameterized": self.inference_form,
        }


@keras.saving.register_keras_serializable(package="dl_techniques")
class PatchEmbedding(Reparameterizable, LayerOfParts):
    """Downsampling between stages: float[B, H, W, C] -> float[B, ceil(H/2), ceil(W/2), filters].

    A `LargeKernelConv` of stride 2, then a 1x1 `MobileOneBlock` with GELU.

    Args:
        filters: int. A multiple of C.
        use_se: bool. SE in the large-kernel convolution. Defaults to `False`.
        use_activation: bool. GELU after the large-kernel convolution. Defaults to `True`.
        reparameterized: bool. Start in inference form. Defaults to `False`.
        **kwargs: name, dtype.

    Example:
        >>> import numpy as np
        >>> tuple(PatchEmbedding(8)(np.ones((1, 8, 6, 4), "float32")).shape[1:])
        (4, 3, 8)

    Reference: Vasu et al., "FastViT", arXiv:2303.14189, figure 2.
    """

    def __init__(
        self,
        filters: int,
        use_se: bool = False,
        use_activation: bool = True,
        reparameterized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.use_se, self.use_activation = filters, use_se, use_activation
        form: dict[str, Any] = {"reparameterized": reparameterized, "dtype": self.dtype_policy}
        self.large_kernel = LargeKernelConv(
            filters, use_se=use_se, use_activation=use_activation, name="large_kernel", **form
        )
        self.pointwise = MobileOneBlock(filters, 1, name="pointwise", **form)

    def build(self, input_shape: Shape) -> None:
        """Builds both blocks."""
        self.large_kernel.build(input_shape)
        self.pointwise.build(self.large_kernel.compute_output_shape(input_shape))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Downsamples, then mixes channels."""
        return self.pointwise(self.large_kernel(inputs, training=training), training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """float[B, ceil(H / 2), ceil(W / 2), filters]."""
        return self.large_kernel.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "use_se": self.use_se,
            "use_activation": self.use_activation,
            "reparameterized": self.reparameterized,
        }
