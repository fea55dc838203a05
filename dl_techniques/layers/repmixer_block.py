"""RepMixer token mixing, the block around it, and the convolutional stem."""

from __future__ import annotations

from typing import Any

import keras

from dl_techniques.layers.conv_ffn import ConvFFN
from dl_techniques.layers.convolution import DepthwiseConv
from dl_techniques.layers.folding import BranchesIntoConv, Fold, ScaleIntoDense
from dl_techniques.layers.freezing import LayerOfParts
from dl_techniques.layers.layer_scale import LayerScale, StochasticDepth
from dl_techniques.layers.mobile_one_block import MobileOneBlock
from dl_techniques.layers.reparameterization import Reparameterizable, SwitchableLayer
from dl_techniques.typing import Shape


@keras.saving.register_keras_serializable(package="dl_techniques")
class RepMixer(SwitchableLayer):
    """x + gamma * (mixer(x) - norm(x)), or one depthwise convolution: float[B,H,W,C] -> same.

    `mixer` is a depthwise `MobileOneBlock` without activation, `norm` a BatchNorm.

    Args:
        kernel_size: int. Odd. Defaults to 3.
        layer_scale_init: float. Start of gamma. Defaults to 1e-5.
        reparameterized: bool. Start in inference form. Defaults to `False`.
        **kwargs: name, dtype.

    Example:
        >>> import numpy as np
        >>> mixer = RepMixer()
        >>> y = mixer(np.ones((1, 4, 4, 8), "float32"))
        >>> mixer.reparameterize()
        >>> len(mixer.weights)
        2

    Reference: Vasu et al., "FastViT", arXiv:2303.14189, section 3.2, eq. 2-4.
    """

    def __init__(
        self,
        kernel_size: int = 3,
        layer_scale_init: float = 1e-5,
        reparameterized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(inference_form=reparameterized, **kwargs)
        self.kernel_size, self.layer_scale_init = kernel_size, layer_scale_init
        self._channels = 0

    def folds(self) -> tuple[Fold, ...]:
        """x + gamma * (mixer - norm) into `fused_conv`."""
        return (
            BranchesIntoConv(
                "fused_conv", self.kernel_size, ("mixer",), "mixer", minus=("norm",),
                scale="layer_scale", residual=True,
            ),
        )  # fmt: skip

    def build(self, input_shape: Shape) -> None:
        """Creates and builds the current form."""
        self._channels = int(input_shape[-1] or 0)
        self.create_parts()
        super().build(input_shape)

    def create_parts(self) -> None:
        """Creates the branches or the one convolution; needs the input's channels."""
        if not self._channels:
            return
        policy, channels = self.dtype_policy, self._channels
        if self.inference_form:
            self.fused_conv = DepthwiseConv(self.kernel_size, name="fused_conv", dtype=policy)
            return
        options: dict[str, Any] = {"depthwise": True, "activation": None, "dtype": policy}
        self.mixer = MobileOneBlock(channels, self.kernel_size, name="mixer", **options)
        self.norm = MobileOneBlock(
            channels, self.kernel_size, name="norm", num_conv_branches=0, use_scale_branch=False,
            **options,
        )  # fmt: skip
        self.layer_scale = LayerScale(self.layer_scale_init, name="layer_scale", dtype=policy)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Mixes each channel over its neighbourhood."""
        if self.inference_form:
            return self.fused_conv(inputs)
        mixed = self.mixer(inputs, training=training) - self.norm(inputs, training=training)
        return inputs + self.layer_scale(mixed)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "layer_scale_init": self.layer_scale_init,
            "reparameterized": self.inference_form,
        }


class ScaledFFN(SwitchableLayer):
    """A block whose residual branch ends in `gamma * ConvFFN(x)`; folding removes gamma.

    Subclasses create `conv_ffn` and may fold more; they call `super()` in every method.
    """

    is_fold = True
    part_order = (
        "drop_path", "layer_scale", "attention_scale", "norm", "attention", "token_mixer",
        "conv_ffn",
    )  # fmt: skip

    def __init__(
        self,
        mlp_ratio: float,
        dropout_rate: float,
        drop_path_rate: float,
        layer_scale_init: float,
        folded: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(inference_form=folded, **kwargs)
        self.mlp_ratio, self.dropout_rate = mlp_ratio, dropout_rate
        self.drop_path_rate, self.layer_scale_init = drop_path_rate, layer_scale_init
        self.drop_path = StochasticDepth(drop_path_rate, name="drop_path", dtype=self.dtype_policy)
        self.create_parts()

    def folds(self) -> tuple[Fold, ...]:
        """The layer scale into the second dense layer."""
        return (ScaleIntoDense("layer_scale", "conv_ffn/fc2"),)

    def create_parts(self) -> None:
        """Creates the layer scale, in training form."""
        if not self.inference_form:
            self.layer_scale = LayerScale(
                self.layer_scale_init, name="layer_scale", dtype=self.dtype_policy
            )

    def build(self, input_shape: Shape) -> None:
        """Creates and builds the feed-forward network, then the parts of the current form."""
        self.conv_ffn = ConvFFN(
            int((input_shape[-1] or 0) * self.mlp_ratio),
            dropout_rate=self.dropout_rate,
            folded=self.inference_form,
            name="conv_ffn",
            dtype=self.dtype_policy,
        )
        self.conv_ffn.build(input_shape)
        super().build(input_shape)

    def feed_forward(self, inputs: Any, training: bool | None) -> Any:
        """x + drop_path(gamma * ConvFFN(x))."""
        branch = self.conv_ffn(inputs, training=training)
        if not self.inference_form:
            branch = self.layer_scale(branch)
        return inputs + self.drop_path(branch, training=training)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        return {
            **super().get_config(),
            "mlp_ratio": self.mlp_ratio,
            "dropout_rate": self.dropout_rate,
            "drop_path_rate": self.drop_path_rate,
            "layer_scale_init": self.layer_scale_init,
            "folded": self.inference_form,
        }


@keras.saving.register_keras_serializable(package="dl_techniques")
class RepMixerBlock(ScaledFFN):
    """RepMixer, then x + gamma * ConvFFN(x): float[B, H, W, C] -> same.

    Args:
        mlp_ratio: float. Hidden width of the ConvFFN over C. Defaults to 4.
        kernel_size: int. RepMixer's kernel. Defaults to 3.
        dropout_rate: float. Inside the ConvFFN. Defaults to 0.
        drop_path_rate: float. Stochastic depth of the ConvFFN branch. Defaults to 0.
        layer_scale_init: float. Start of both gammas. Defaults to 1e-5.
        reparameterized: bool. Start with the mixer fused. Defaults to `False`.
        folded: bool. Start with layer scale and BatchNorm folded away. Defaults to `False`.
        **kwargs: name, dtype.

    Example:
        >>> import numpy as np
        >>> block = RepMixerBlock(mlp_ratio=2.0)
        >>> y = block(np.ones((1, 4, 4, 8), "float32"))
        >>> block.reparameterize(fold=True)
        >>> block.reparameterized and block.folded
        True

    Reference: Vasu et al., "FastViT", arXiv:2303.14189, figure 2.
    """

    def __init__(
        self,
        mlp_ratio: float = 4.0,
        kernel_size: int = 3,
        dropout_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init: float = 1e-5,
        reparameterized: bool = False,
        folded: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            mlp_ratio, dropout_rate, drop_path_rate, layer_scale_init, folded, **kwargs
        )
        self.kernel_size = kernel_size
        self.token_mixer = RepMixer(
            kernel_size, layer_scale_init, reparameterized, name="token_mixer",
            dtype=self.dtype_policy,
        )  # fmt: skip

    def build(self, input_shape: Shape) -> None:
        """Builds mixer and feed-forward network."""
        self.token_mixer.build(input_shape)
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Mixes places, then channels."""
        return self.feed_forward(self.token_mixer(inputs, training=training), training)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        return {
            **super().get_config(),
            "kernel_size": self.kernel_size,
            "reparameterized": self.token_mixer.inference_form,
        }


@keras.saving.register_keras_serializable(package="dl_techniques")
class ConvolutionalStem(Reparameterizable, LayerOfParts):
    """Three MobileOne blocks of stride 2, 2 and 1: float[B,H,W,3] -> float[B,ceil(H/4),..,filters].

    Args:
        filters: int. Output channels.
        use_scale_branch: bool. The 1x1 branches of the first two blocks. Defaults to `True`.
        reparameterized: bool. Start in inference form. Defaults to `False`.
        **kwargs: name, dtype.

    Example:
        >>> import numpy as np
        >>> stem = ConvolutionalStem(8)
        >>> y = stem(np.ones((1, 16, 12, 3), "float32"))
        >>> stem.reparameterize()
        >>> tuple(y.shape[1:]), stem.reparameterized
        ((4, 3, 8), True)

    Reference: Vasu et al., "FastViT", arXiv:2303.14189, section 3.3.
    """

    def __init__(
        self,
        filters: int,
        use_scale_branch: bool = True,
        reparameterized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.use_scale_branch = filters, use_scale_branch
        options: dict[str, Any] = {
            "use_scale_branch": use_scale_branch,
            "reparameterized": reparameterized,
            "dtype": self.dtype_policy,
        }
        self.blocks = [
            MobileOneBlock(filters, 3, 2, name="block_0", **options),
            MobileOneBlock(filters, 3, 2, depthwise=True, name="block_1", **options),
            MobileOneBlock(filters, 1, 1, name="block_2", **options),
        ]

    def build(self, input_shape: Shape) -> None:
        """Builds the three blocks."""
        shape = tuple(input_shape)
        for block in self.blocks:
            block.build(shape)
            shape = block.compute_output_shape(shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Quarter resolution."""
        for block in self.blocks:
            inputs = block(inputs, training=training)
        return inputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """float[B, ceil(H / 4), ceil(W / 4), filters]."""
        shape = tuple(input_shape)
        for block in self.blocks:
            shape = block.compute_output_shape(shape)
        return shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "use_scale_branch": self.use_scale_branch,
            "reparameterized": self.reparameterized,
        }
