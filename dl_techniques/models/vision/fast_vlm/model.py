"""FastVLM: the hybrid convolution-attention backbone and classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import keras

from dl_techniques.data.preprocessing import (
    FIELDS,
    Preprocessing,
    rescaling_layers,
)
from dl_techniques.errors import VariantError
from dl_techniques.layers.freezing import flags_config
from dl_techniques.layers.initializers import HostTruncatedNormal
from dl_techniques.layers.large_kernel_conv import PatchEmbedding
from dl_techniques.layers.mobile_one_block import MobileOneBlock
from dl_techniques.layers.multi_scale import MultiScaleFeatures
from dl_techniques.layers.repmixer_block import ConvolutionalStem
from dl_techniques.models.vision.arguments import check_input_shape, refuse_float16
from dl_techniques.models.vision.fast_vlm.components import Stage
from dl_techniques.models.vision.fast_vlm.config import (
    FastVLMConfig,
    load_variants,
    without_unused,
)
from dl_techniques.models.vision.switchable_model import SwitchableModel, paths_below
from dl_techniques.models.vision.variant_files import check_overrides
from dl_techniques.typing import Tensor

FLOAT32_RANGE = "fastvithd"
"""The variant whose activations leave float16's range; bfloat16 has float32's."""
_CONFIG_ONLY = tuple(FIELDS.values())
_FREE = (
    "include_top",
    "include_preprocessing",
    "input_shape",
    "classifier_activation",
    "reparameterized",
    "dtype",
)


@keras.saving.register_keras_serializable(package="dl_techniques")
class FastVLM(SwitchableModel):
    """Hybrid backbone: stem (stride 4), stages with downsampling between, tail, classifier.

    float[B, H, W, 3] in -> float[B, num_classes] logits out, or with `include_top=False` the last
    feature map, float[B, ceil(H / s), ceil(W / s), C] with `s = total_stride`. Pixels are expected
    as the variant's `mean` and `std` say (for nano to huge simply in [0, 1]), or 0..255 with
    `include_preprocessing=True`.

    Args:
        num_classes: int. 0 gives the pooled features, float[B, C]. Defaults to 1000.
        embed_dims: channels of each stage. Defaults to (64, 128, 256).
        depths: blocks of each stage. Defaults to (3, 4, 6).
        num_heads: attention heads of each stage. Defaults to channels // 32.
        mlp_ratio: hidden width of the ConvFFNs over channels; one number, or one a stage.
            Defaults to 4.
        dropout_rate: float. Defaults to 0.
        drop_path_rate: float. Stochastic depth, linear over all blocks. Defaults to 0.
        use_se: bool. Squeeze-and-excitation in the downsamples. Defaults to `False`.
        include_top: bool. Pool and classify. Defaults to `True`.
        input_shape: (H, W, 3); H and W may be `None`. Defaults to (None, None, 3).
        mixers: "repmixer" or "attention" a stage. Defaults to attention in the last.
        positional_stages: stages with conditional positions. Defaults to the attention stages.
        se_stages: stages whose downsample has SE. Defaults to what `use_se` says.
        downsample_activation: bool. GELU after the 7x7 convolution. Defaults to `True`.
        stem_scale_branch: bool. Defaults to `True`.
        attention_norm: "batch" or "layer". Defaults to "batch".
        attention_kind: "full", "window", "strided" or "linear": which places the attention stages
            let look at which; the weights are the same. Defaults to "full".
        attention_extent: side of a window (8) or of a strided cell (2), in places of the map.
        layer_scale_init: float. Defaults to 1e-5.
        tail_expansion: int. Factor of the tail convolution; 0 means none. Defaults to 0.
        multi_scale: int. Stages before the last whose maps are joined to the last map, laid out
            cell by cell on its grid, for a reader of small things. Only without a classifier; see
            `MultiScaleFeatures`. Defaults to 0.
        classifier_activation: str or None. Defaults to `None` (logits).
        reparameterized: which switches start in inference form; written by `get_config`.
        preprocessing: `Preprocessing` or its fields. Defaults to what the variant of these numbers
            says, or to pixels in [0, 1].
        include_preprocessing: bool. The network takes pixels 0..255, as
            `keras.utils.image_dataset_from_directory` gives them, and scales them itself by what
            `preprocessing` says; kept in files. Defaults to `False`: pixels are divided by 255
            (and normalised, where `preprocessing` has a mean) before.
        name: str.
        dtype: dtype policy of every layer.

    Attributes:
        embed_dims, depths, ...: every argument by its name; sequences as tuples, `input_shape`
            with the batch in front (`image_shape` without), `reparameterized` as the form is now.

    Raises:
        VariantError: numbers that mean nothing or do not agree with each other.

    Example:
        >>> import numpy as np
        >>> model = FastVLM.from_variant("nano", num_classes=10, input_shape=(64, 64, 3))
        >>> model(np.ones((1, 64, 64, 3), "float32")).shape[1]
        10
        >>> [tuple(f.shape[1:]) for f in model.extract_features(np.ones((1, 64, 64, 3), "float32"))]
        [(16, 16, 24), (16, 16, 24), (8, 8, 48), (4, 4, 96)]

    Reference: Vasu et al., "FastVLM", arXiv:2412.13303; "FastViT", arXiv:2303.14189.
    """

    MODEL_VARIANTS: ClassVar[Mapping[str, FastVLMConfig]] = load_variants()
    num_classes: int
    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...] | None
    mlp_ratio: float | tuple[float, ...]
    dropout_rate: float
    drop_path_rate: float
    use_se: bool
    mixers: tuple[str, ...] | None
    positional_stages: tuple[int, ...] | None
    se_stages: tuple[int, ...] | None
    downsample_activation: bool
    stem_scale_branch: bool
    attention_norm: str
    attention_kind: str
    attention_extent: int | None
    layer_scale_init: float
    tail_expansion: int
    multi_scale: int

    def __init__(
        self,
        num_classes: int = 1000,
        embed_dims: Sequence[int] = (64, 128, 256),
        depths: Sequence[int] = (3, 4, 6),
        num_heads: Sequence[int] | None = None,
        mlp_ratio: float | Sequence[float] = 4.0,
        dropout_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        use_se: bool = False,
        include_top: bool = True,
        input_shape: Sequence[int | None] = (None, None, 3),
        mixers: Sequence[str] | None = None,
        positional_stages: Sequence[int] | None = None,
        se_stages: Sequence[int] | None = None,
        downsample_activation: bool = True,
        stem_scale_branch: bool = True,
        attention_norm: str = "batch",
        attention_kind: str = "full",
        attention_extent: int | None = None,
        layer_scale_init: float = 1e-5,
        tail_expansion: int = 0,
        multi_scale: int = 0,
        classifier_activation: str | None = None,
        reparameterized: bool | str | Mapping[str, bool] = False,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        name: str = "fast_vlm",
        dtype: Any = None,
        include_preprocessing: bool = False,
    ) -> None:
        config = FastVLMConfig(
            embed_dims=tuple(embed_dims),
            depths=tuple(depths),
            num_heads=_tuple(num_heads),
            mixers=_tuple(mixers),
            positional_stages=_tuple(positional_stages),
            mlp_ratio=tuple(mlp_ratio) if isinstance(mlp_ratio, Sequence) else mlp_ratio,
            dropout_rate=dropout_rate,
            drop_path_rate=drop_path_rate,
            use_se=use_se,
            se_stages=_tuple(se_stages),
            downsample_activation=downsample_activation,
            stem_scale_branch=stem_scale_branch,
            attention_norm=attention_norm,
            attention_kind=attention_kind,
            attention_extent=attention_extent,
            layer_scale_init=layer_scale_init,
            tail_expansion=tail_expansion,
            multi_scale=multi_scale,
            num_classes=num_classes,
        )
        _check_ends(config, include_top, input_shape)

        # === Layers ===
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        stem = ConvolutionalStem(
            config.embed_dims[0], config.stem_scale_branch, name="stem", dtype=policy
        )
        stages = [_stage(config, i, policy) for i in range(len(config.depths))]
        downsamples = [_downsample(config, i, policy) for i in range(1, len(config.depths))]
        tail = _tail(config, policy)
        head = _head(config, classifier_activation, policy) if include_top else []

        ready = (
            _default_preprocessing(config)
            if preprocessing is None
            else Preprocessing.from_config(preprocessing)
        )
        rescaling = rescaling_layers(ready) if include_preprocessing else []

        # === Functional Model ===
        image = keras.Input(shape=tuple(input_shape), name="image", dtype="float32")
        with paths_below(name):
            x = image
            for layer in rescaling:
                x = layer(x)
            x = stages[0](stem(x))
            finer = []
            for downsample, stage in zip(downsamples, stages[1:], strict=True):
                finer.append(x)
                x = stage(downsample(x))
            if tail is not None:
                x = tail(x)
            if multi_scale:
                join = MultiScaleFeatures(name="multi_scale", dtype=policy)
                x = join([*finer[-multi_scale:], x])
            for layer in head:
                x = layer(x)
        super().__init__(inputs=image, outputs=x, name=name)

        # === Config ===
        self.preprocessing = ready
        self.include_preprocessing, self.rescaling = include_preprocessing, rescaling
        self.config = dataclasses.replace(config, **self.preprocessing.variant_fields())
        self.show_arguments(config, FIELDS.values())
        self.include_top = include_top
        self.classifier_activation = classifier_activation
        self.image_shape = tuple(input_shape)
        self.dtype_policy = policy
        self.stem, self.stages, self.downsample_layers = stem, stages, downsamples
        self.tail, self.head = tail, head
        self.start_in(reparameterized)

    @classmethod
    def from_variant(cls, name: str, /, **overrides: Any) -> FastVLM:
        """A network by name, randomly initialised.

        The network takes float[B, H, W, 3] with **pixels in [0, 1]**, normalised by the variant's
        `mean` and `std` where it has some (see `preprocessing`). Pixels 0..255, which
        `keras.utils.image_dataset_from_directory` gives, are for `include_preprocessing=True`.

        Args:
            name: one of `MODEL_VARIANTS`.
            **overrides: constructor arguments that replace the variant's.

        Raises:
            VariantError: unknown name (the nearest is given) or argument, or float16 for the
                tower that overflows it (`fastvithd`).

        Example:
            >>> FastVLM.from_variant("nano", include_top=False).feature_dim
            96
        """
        arguments = variant_arguments(name)
        check_overrides(cls, overrides, {*arguments, *_FREE})
        if name == FLOAT32_RANGE:
            refuse_float16(overrides.get("dtype"))
        return cls(**{**arguments, **overrides})

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """The inverse of `get_config`."""
        return super().from_config(without_unused(config), custom_objects)

    @property
    def feature_dim(self) -> int:
        """Channels of the last feature map."""
        return self.config.feature_dim

    @property
    def total_stride(self) -> int:
        """Input pixels per place of the last feature map, along one side."""
        return self.config.total_stride

    def extract_features(self, images: Tensor, training: bool = False) -> list[Any]:
        """The stem's map, then each stage's: float[B, H / s, W / s, C] with s = 4, 4, 8, 16, ...

        Args:
            images: float[B, H, W, 3].
            training: bool. Defaults to `False`.

        Returns:
            One map more than there are stages. They equal the tensors inside the forward pass.
        """
        features = [self.stem(self.rescaled(images), training=training)]
        features.append(self.stages[0](features[0], training=training))
        for downsample, stage in zip(self.downsample_layers, self.stages[1:], strict=True):
            x = downsample(features[-1], training=training)
            features.append(stage(x, training=training))
        return features

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        config = dataclasses.asdict(self.config)
        config = {k: v for k, v in config.items() if k not in _CONFIG_ONLY}
        config = {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}
        return {
            **config,
            "include_top": self.include_top,
            "input_shape": list(self.image_shape),
            "classifier_activation": self.classifier_activation,
            "reparameterized": self.form_config(),
            **self.quantization_config(),
            **flags_config(self),
            "preprocessing": self.preprocessing.get_config(),
            "include_preprocessing": self.include_preprocessing,
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }


def variant_arguments(name: str) -> dict[str, Any]:
    """Constructor arguments of a variant.

    Raises:
        VariantError: unknown name (the nearest is given).
    """
    config = FastVLMConfig.from_variant(name)
    arguments = {k: v for k, v in dataclasses.asdict(config).items() if k not in _CONFIG_ONLY}
    return {**arguments, "preprocessing": Preprocessing.of(config), "name": f"fast_vlm_{name}"}


def _check_ends(
    config: FastVLMConfig, include_top: bool, input_shape: Sequence[int | None]
) -> None:
    """Refuses pictures without channels and heads that do not fit."""
    check_input_shape(input_shape)
    if include_top and config.multi_scale:
        raise VariantError(
            f"multi_scale={config.multi_scale} is for a feature map, and a classifier reads the "
            "last stage alone; give include_top=False as well"
        )


def _default_preprocessing(config: FastVLMConfig) -> Preprocessing:
    """What the variant with these layers says; FastViTHD comes before its namesake MCi3."""
    plain = dataclasses.replace(config, multi_scale=0)  # no variant has it; pictures do not differ
    same = [c for c in load_variants().values() if c.same_network(plain)]
    return Preprocessing.of(same[0] if same else config)


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)


def _stage(config: FastVLMConfig, index: int, policy: keras.DTypePolicy) -> Stage:
    return Stage(
        config.depths[index],
        config.stage_mixers[index],
        config.heads(index),
        config.mlp_ratios[index],
        config.has_position(index),
        config.attention_norm,
        config.dropout_rate,
        config.drop_path_rates(index),
        config.layer_scale_init,
        attention_kind=config.attention_kind,
        attention_extent=config.attention_extent,
        name=f"stage_{index + 1}",
        dtype=policy,
    )


def _downsample(config: FastVLMConfig, index: int, policy: keras.DTypePolicy) -> PatchEmbedding:
    return PatchEmbedding(
        config.embed_dims[index],
        config.has_se(index),
        config.downsample_activation,
        name=f"downsample_{index}",
        dtype=policy,
    )


def _tail(config: FastVLMConfig, policy: keras.DTypePolicy) -> MobileOneBlock | None:
    if not config.tail_expansion:
        return None
    return MobileOneBlock(
        config.embed_dims[-1] * config.tail_expansion,
        depthwise=True,
        use_se=True,
        use_identity_branch=config.tail_expansion == 1,
        name="tail",
        dtype=policy,
    )


def _head(config: FastVLMConfig, activation: str | None, policy: keras.DTypePolicy) -> list[Any]:
    """Global average pooling, dropout, classifier."""
    pool = keras.layers.GlobalAveragePooling2D("channels_last", name="pool", dtype=policy)
    layers: list[Any] = [pool]
    if config.num_classes:
        layers.append(keras.layers.Dropout(config.dropout_rate, name="head_dropout", dtype=policy))
        layers.append(
            keras.layers.Dense(
                config.num_classes,
                activation=activation,
                kernel_initializer=HostTruncatedNormal(),
                name="head",
                dtype=policy,
            )
        )
    return layers
