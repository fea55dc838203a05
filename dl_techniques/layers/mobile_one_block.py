"""MobileOne block: parallel branches that become one convolution."""

from __future__ import annotations

from typing import Any

import keras

from dl_techniques.layers.activations import get_activation, serialize_activation
from dl_techniques.layers.convolution import Conv, DepthwiseConv
from dl_techniques.layers.folding import BranchesIntoConv, add_before_norm
from dl_techniques.layers.freezing import LayerOfParts
from dl_techniques.layers.fusion import Linear, as_float64, fuse_norm
from dl_techniques.layers.reparameterization import SwitchableLayer
from dl_techniques.layers.squeeze_excitation import SqueezeExcitation
from dl_techniques.typing import Shape


def batch_norm(name: str, dtype: Any) -> keras.layers.BatchNormalization:
    """The family's BatchNorm: epsilon 1e-5, momentum 0.9 (PyTorch's 0.1)."""
    return keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=name, dtype=dtype)


@keras.saving.register_keras_serializable(package="dl_techniques")
class ConvNorm(LayerOfParts):
    """Bias-free convolution and BatchNorm: float[B, H, W, C] -> float[B, H', W', filters].

    Args:
        filters: int. Output channels; a multiple of the input's when `depthwise`.
        kernel_size: int. Odd side of the kernel.
        strides: int. Defaults to 1.
        depthwise: bool. One group per input channel. Defaults to `False`.
        **kwargs: name, dtype.

    Raises:
        ValueError: `depthwise`, and `filters` is no multiple of the input's channels.

    Example:
        >>> import numpy as np
        >>> tuple(ConvNorm(8, 3, strides=2)(np.ones((1, 4, 4, 3), "float32")).shape[1:])
        (2, 2, 8)
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        depthwise: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.strides = filters, kernel_size, strides
        self.depthwise = depthwise
        self.norm = batch_norm("norm", self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        """Creates the convolution once the input's channels are known."""
        self.conv = convolution(
            self.filters,
            self.kernel_size,
            self.strides,
            self.depthwise,
            int(input_shape[-1] or 0),
            use_bias=False,
            name="conv",
            dtype=self.dtype_policy,
        )
        self.conv.build(input_shape)
        self.norm.build(self.conv.compute_output_shape(input_shape))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Convolution, then BatchNorm."""
        return self.norm(self.conv(inputs), training=training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """float[B, ceil(H / s), ceil(W / s), filters]."""
        batch, height, width, _ = input_shape
        return (batch, _ceil(height, self.strides), _ceil(width, self.strides), self.filters)

    def fused(self) -> Linear:
        """Both as one convolution."""
        return fuse_norm(as_float64(self.conv.kernel), self.norm, self.depthwise)

    def add(self, difference: Linear) -> None:
        """Adds `difference` to what this layer computes at inference."""
        add_before_norm(self.conv, self.norm, difference, self.depthwise)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "depthwise": self.depthwise,
        }


def convolution(
    filters: int,
    kernel_size: int,
    strides: int,
    depthwise: bool,
    channels: int,
    **kwargs: Any,
) -> Conv | DepthwiseConv:
    """A dense or depthwise convolution with `filters` outputs.

    Raises:
        ValueError: `depthwise`, and `filters` is no multiple of `channels`.
    """
    if not depthwise:
        return Conv(filters, kernel_size, strides, **kwargs)
    if channels < 1 or filters % channels:
        raise ValueError(
            f"a depthwise block needs filters that are a multiple of the input's channels; "
            f"got filters={filters} for {channels} channels"
        )
    return DepthwiseConv(kernel_size, strides, filters // channels, **kwargs)


@keras.saving.register_keras_serializable(package="dl_techniques")
class MobileOneBlock(SwitchableLayer):
    """Parallel branches, SE, activation: float[B, H, W, C] -> float[B, H', W', filters].

    Branches in training form: `num_conv_branches` k x k convolutions with BatchNorm; a 1x1
    convolution with BatchNorm (if k > 1); a BatchNorm alone (if shapes allow it). In inference
    form the sum is one convolution with bias; SE and activation stay.

    Args:
        filters: int. Output channels.
        kernel_size: int. Odd. Defaults to 3.
        strides: int. Defaults to 1.
        depthwise: bool. One group per input channel. Defaults to `False`.
        use_se: bool. Squeeze-and-excitation, ratio 1/16. Defaults to `False`.
        activation: str, callable or None. "gelu" is the exact one. Defaults to "gelu".
        use_scale_branch: bool. The 1x1 branch. Defaults to `True`.
        use_identity_branch: bool. The BatchNorm branch. Defaults to `True`.
        num_conv_branches: int. May be 0. Defaults to 1.
        reparameterized: bool. Start in inference form. Defaults to `False`.
        **kwargs: name, dtype.

    Raises:
        ValueError: no branch is left, or depthwise `filters` do not fit the input.

    Example:
        >>> import numpy as np
        >>> block = MobileOneBlock(8, strides=2)
        >>> y = block(np.ones((1, 8, 8, 3), "float32"))
        >>> block.reparameterize()
        >>> tuple(y.shape[1:]), len(block.weights)
        ((4, 4, 8), 2)

    Reference: Vasu et al., "MobileOne", arXiv:2206.04040, figure 3.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        depthwise: bool = False,
        use_se: bool = False,
        activation: Any = "gelu",
        use_scale_branch: bool = True,
        use_identity_branch: bool = True,
        num_conv_branches: int = 1,
        reparameterized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(inference_form=reparameterized, **kwargs)
        self.filters, self.kernel_size, self.strides = filters, kernel_size, strides
        self.depthwise, self.use_se = depthwise, use_se
        self.activation = get_activation(activation)
        self.use_scale_branch = use_scale_branch
        self.use_identity_branch = use_identity_branch
        self.num_conv_branches = num_conv_branches
        self.se = SqueezeExcitation(name="se", dtype=self.dtype_policy) if use_se else None
        self._channels = 0

    @property
    def has_scale(self) -> bool:
        """Whether the training form has the 1x1 branch."""
        return self.use_scale_branch and self.kernel_size > 1

    @property
    def has_identity(self) -> bool:
        """Whether the training form has the BatchNorm branch."""
        return self.use_identity_branch and self.filters == self._channels and self.strides == 1

    def folds(self) -> tuple[BranchesIntoConv, ...]:
        """All branches into `fused_conv`."""
        convs = tuple(f"conv_{i}" for i in range(self.num_conv_branches))
        scale = ("scale",) if self.has_scale else ()
        identity = ("identity",) if self.has_identity else ()
        learner = next(iter(convs[:1] + identity), None)
        branches = (*convs, *scale, *identity)
        return (
            BranchesIntoConv("fused_conv", self.kernel_size, branches, learner, self.depthwise),
        )

    def build(self, input_shape: Shape) -> None:
        """Creates and builds the current form."""
        self._channels = int(input_shape[-1] or 0)
        self.create_parts()
        if not self.form_parts(self.inference_form):
            raise ValueError(f"{self.name}: no branch is left; allow a conv, scale or identity one")
        super().build(input_shape)
        if self.se is not None:
            self.se.build(self.compute_output_shape(input_shape))

    def create_parts(self) -> None:
        """Creates the branches or the one convolution; needs the input's channels."""
        if not self._channels:
            return
        policy = self.dtype_policy
        if self.inference_form:
            self.fused_conv = convolution(
                self.filters, self.kernel_size, self.strides, self.depthwise, self._channels,
                use_bias=True, name="fused_conv", dtype=policy,
            )  # fmt: skip
            return
        for name in self.form_parts(False):
            if name == "identity":
                branch: Any = batch_norm(name, policy)
            else:
                size = 1 if name == "scale" else self.kernel_size
                branch = ConvNorm(
                    self.filters, size, self.strides, self.depthwise, name=name, dtype=policy
                )
            setattr(self, name, branch)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Sum of branches (or the fused convolution), SE, activation."""
        if self.inference_form:
            outputs = self.fused_conv(inputs)
        else:
            parts = [getattr(self, name) for name in self.form_parts(False)]
            outputs = parts[0](inputs, training=training)
            for part in parts[1:]:
                outputs = outputs + part(inputs, training=training)
        if self.se is not None:
            outputs = self.se(outputs)
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """float[B, ceil(H / s), ceil(W / s), filters]."""
        batch, height, width, _ = input_shape
        return (batch, _ceil(height, self.strides), _ceil(width, self.strides), self.filters)

    def fused(self) -> Linear:
        """All branches as one convolution."""
        if self.inference_form:
            return Linear(as_float64(self.fused_conv.kernel), as_float64(self.fused_conv.bias))
        return self.folds()[0].linear(self)

    def add(self, change: Linear) -> None:
        """Adds `change` to what the branches compute at inference."""
        self.set_form(False)
        self.folds()[0].add(self, change)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "depthwise": self.depthwise,
            "use_se": self.use_se,
            "activation": serialize_activation(self.activation),
            "use_scale_branch": self.use_scale_branch,
            "use_identity_branch": self.use_identity_branch,
            "num_conv_branches": self.num_conv_branches,
            "reparameterized": self.inference_form,
        }


def _ceil(length: int | None, stride: int) -> int | None:
    return None if length is None else -(-length // stride)
