"""A block of attention, and a stage of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from dl_techniques.layers.attention_kinds import check_kind
from dl_techniques.layers.folding import Fold, NormIntoDense, ScaleIntoDense
from dl_techniques.layers.freezing import LayerOfParts
from dl_techniques.layers.layer_scale import LayerScale
from dl_techniques.layers.mobile_one_block import batch_norm
from dl_techniques.layers.positional_encoding import ConditionalPositionalEncoding
from dl_techniques.layers.reparameterization import Reparameterizable
from dl_techniques.layers.repmixer_block import RepMixerBlock, ScaledFFN
from dl_techniques.models.vision.fast_vlm.attention import Attention
from dl_techniques.typing import Shape


@keras.saving.register_keras_serializable(package="dl_techniques")
class AttentionBlock(ScaledFFN):
    """x + g1 * Attention(norm(x)), then x + g2 * ConvFFN(x): float[B, H, W, C] -> same.

    Folding puts the BatchNorm into `qkv` (which gets a bias) and both gammas into the dense
    layers before them; a LayerNorm cannot be folded and stays. A bias that was trained in the
    folded form stays with `qkv` when the block goes back: no BatchNorm before it could hold it.

    Args:
        num_heads: int. Divides C.
        mlp_ratio: float. Hidden width of the ConvFFN over C. Defaults to 4.
        norm: str. "batch" or "layer" (over channels). Defaults to "batch".
        dropout_rate: float. In attention output and ConvFFN. Defaults to 0.
        drop_path_rate: float. Stochastic depth of both branches. Defaults to 0.
        layer_scale_init: float. Start of both gammas. Defaults to 1e-5.
        folded: bool. Start in the folded form. Defaults to `False`.
        attention_kind: str. Of `Attention`. Defaults to "full".
        attention_extent: int. Of `Attention`.
        qkv_bias: bool. `qkv` has a bias in the training form as well. Defaults to `False`.
        **kwargs: name, dtype.

    Raises:
        ValueError: an unknown norm or kind, or C is no multiple of `num_heads`.

    Example:
        >>> import numpy as np
        >>> tuple(AttentionBlock(num_heads=2)(np.ones((1, 4, 4, 8), "float32")).shape[1:])
        (4, 4, 8)

    Reference: Vasu et al., "FastViT", arXiv:2303.14189, figure 2.
    """

    def __init__(
        self,
        num_heads: int,
        mlp_ratio: float = 4.0,
        norm: str = "batch",
        dropout_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init: float = 1e-5,
        folded: bool = False,
        attention_kind: str = "full",
        attention_extent: int | None = None,
        qkv_bias: bool = False,
        **kwargs: Any,
    ) -> None:
        if norm not in ("batch", "layer"):
            raise ValueError(f'norm must be "batch" or "layer", got {norm!r}')
        check_kind(attention_kind, attention_extent)
        self._norm_kind, self.qkv_bias = norm, qkv_bias
        self.attention_kind, self.attention_extent = attention_kind, attention_extent
        super().__init__(
            mlp_ratio, dropout_rate, drop_path_rate, layer_scale_init, folded, **kwargs
        )
        self.num_heads = num_heads
        if norm == "layer":
            self.norm = keras.layers.LayerNormalization(
                epsilon=1e-5, name="norm", dtype=self.dtype_policy
            )

    def folds(self) -> tuple[Fold, ...]:
        """The BatchNorm into `qkv`, both layer scales into the dense layers before them."""
        scale = ScaleIntoDense("attention_scale", "attention/proj")
        if self._norm_kind == "layer":
            return (*super().folds(), scale)
        norm = NormIntoDense("norm", "attention/qkv", self._add_qkv_bias)
        return (norm, *super().folds(), scale)

    def create_parts(self) -> None:
        """Creates what the current form has; attention itself once the heads are known."""
        super().create_parts()
        policy = self.dtype_policy
        if not self.inference_form:
            self.attention_scale = LayerScale(
                self.layer_scale_init, name="attention_scale", dtype=policy
            )
            if self._norm_kind == "batch":
                self.norm = batch_norm("norm", policy)
        if self._built_shape is not None and self._norm_kind == "batch":
            self._create_attention()

    def _create_attention(self) -> None:
        folded_norm = self.inference_form and self._norm_kind == "batch"
        self.attention = Attention(
            self.num_heads, folded_norm or self.qkv_bias, self.dropout_rate, self.attention_kind,
            self.attention_extent, name="attention", dtype=self.dtype_policy,
        )  # fmt: skip

    def build(self, input_shape: Shape) -> None:
        """Builds norm, attention and feed-forward network."""
        self._create_attention()
        self.attention.build(input_shape)
        if self._norm_kind == "layer":
            self.norm.build(input_shape)
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Mixes places, then channels."""
        folded_norm = self.inference_form and self._norm_kind == "batch"
        x = inputs if folded_norm else self._normalize(inputs, training)
        branch = self.attention(x, training=training)
        if not self.inference_form:
            branch = self.attention_scale(branch)
        return self.feed_forward(inputs + self.drop_path(branch, training=training), training)

    def _normalize(self, inputs: Any, training: bool | None) -> Any:
        if self._norm_kind == "batch":
            return self.norm(inputs, training=training)
        return self.norm(inputs)

    def form_word(self) -> bool | str:
        """`True`, `False`, or "biased": the training form with a bias in `qkv`."""
        return "biased" if self.qkv_bias and not self.inference_form else self.inference_form

    def declare_form(self, form: bool | str) -> None:
        """Takes on a saved form, without its weights."""
        if form != "biased":
            super().declare_form(form)
            return
        self.qkv_bias = True
        self._replace_parts(False)

    def _add_qkv_bias(self) -> None:
        """The training form anew, with a bias; its other parts keep their values."""
        others = [name for name in self.form_parts(False) if name != "attention"]
        values = {name: getattr(self, name).get_weights() for name in others}
        self.qkv_bias = True
        self._replace_parts(False)
        for name, weights in values.items():
            getattr(self, name).set_weights(weights)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "norm": self._norm_kind,
            "attention_kind": self.attention_kind,
            "attention_extent": self.attention_extent,
            "qkv_bias": self.qkv_bias,
        }


@keras.saving.register_keras_serializable(package="dl_techniques")
class Stage(Reparameterizable, LayerOfParts):
    """A conditional positional encoding (optional), then blocks: float[B, H, W, C] -> same.

    Args:
        depth: int. Number of blocks.
        mixer: str. "repmixer" or "attention".
        num_heads: int. Heads of attention blocks.
        mlp_ratio: float. Defaults to 4.
        positional_encoding: bool. Defaults to `False`.
        norm: str. Norm of attention blocks, "batch" or "layer". Defaults to "batch".
        dropout_rate: float. Defaults to 0.
        drop_path_rates: sequence of `depth` floats. Defaults to zeros.
        layer_scale_init: float. Defaults to 1e-5.
        reparameterized: bool or "folded". The form to start in. Defaults to `False`.
        attention_kind: str. Of attention blocks. Defaults to "full".
        attention_extent: int. Of attention blocks.
        **kwargs: name, dtype.

    Raises:
        ValueError: an unknown mixer, or not one drop path rate a block.

    Example:
        >>> import numpy as np
        >>> tuple(Stage(2, "repmixer", num_heads=1)(np.ones((1, 4, 4, 8), "float32")).shape[1:])
        (4, 4, 8)
    """

    def __init__(
        self,
        depth: int,
        mixer: str,
        num_heads: int,
        mlp_ratio: float = 4.0,
        positional_encoding: bool = False,
        norm: str = "batch",
        dropout_rate: float = 0.0,
        drop_path_rates: Sequence[float] | None = None,
        layer_scale_init: float = 1e-5,
        reparameterized: bool | str = False,
        attention_kind: str = "full",
        attention_extent: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.attention_kind, self.attention_extent = attention_kind, attention_extent
        rates = list(drop_path_rates) if drop_path_rates is not None else [0.0] * depth
        if mixer not in ("repmixer", "attention") or len(rates) != depth:
            raise ValueError(
                f'a stage needs mixer "repmixer" or "attention" and one drop path rate a block; '
                f"got {mixer!r} and {len(rates)} rates for {depth} blocks"
            )
        if reparameterized not in (False, True, "folded"):
            raise ValueError(
                f'reparameterized must be True, False or "folded", got {reparameterized!r}'
            )
        self.depth, self.mixer, self.num_heads = depth, mixer, num_heads
        self.mlp_ratio, self.positional_encoding, self.norm_kind = (
            mlp_ratio,
            positional_encoding,
            norm,
        )
        self.dropout_rate, self.drop_path_rates = dropout_rate, tuple(rates)
        self.layer_scale_init = layer_scale_init
        self.position = (
            ConditionalPositionalEncoding(
                reparameterized=bool(reparameterized), name="position", dtype=self.dtype_policy
            )
            if positional_encoding
            else None
        )
        self.blocks = [self._block(i, rate, reparameterized) for i, rate in enumerate(rates)]

    def _block(
        self, index: int, drop_path_rate: float, form: bool | str
    ) -> RepMixerBlock | AttentionBlock:
        options: dict[str, Any] = {
            "mlp_ratio": self.mlp_ratio,
            "dropout_rate": self.dropout_rate,
            "drop_path_rate": drop_path_rate,
            "layer_scale_init": self.layer_scale_init,
            "folded": form == "folded",
            "name": f"block_{index}",
            "dtype": self.dtype_policy,
        }
        if self.mixer == "repmixer":
            return RepMixerBlock(reparameterized=bool(form), **options)
        kind, extent = self.attention_kind, self.attention_extent
        return AttentionBlock(
            self.num_heads,
            norm=self.norm_kind,
            attention_kind=kind,
            attention_extent=extent,
            **options,
        )

    def build(self, input_shape: Shape) -> None:
        """Builds the encoding and the blocks."""
        for part in ([self.position] if self.position is not None else []) + self.blocks:
            part.build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Applies the encoding and the blocks."""
        x = inputs if self.position is None else self.position(inputs)
        for block in self.blocks:
            x = block(x, training=training)
        return x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        return {
            **super().get_config(),
            "depth": self.depth,
            "mixer": self.mixer,
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "positional_encoding": self.positional_encoding,
            "norm": self.norm_kind,
            "dropout_rate": self.dropout_rate,
            "drop_path_rates": list(self.drop_path_rates),
            "layer_scale_init": self.layer_scale_init,
            "reparameterized": "folded" if self.folded else self.reparameterized,
            "attention_kind": self.attention_kind,
            "attention_extent": self.attention_extent,
        }
