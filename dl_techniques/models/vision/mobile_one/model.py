"""MobileOne: stem and stages of MobileOne blocks, and a classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras

from dl_techniques.data.preprocessing import (
    FIELDS,
    Preprocessing,
    rescaling_layers,
)
from dl_techniques.layers.freezing import LayerOfParts, flags_config
from dl_techniques.layers.initializers import HostTruncatedNormal
from dl_techniques.layers.mobile_one_block import MobileOneBlock
from dl_techniques.layers.reparameterization import Reparameterizable
from dl_techniques.models.vision.arguments import check_input_shape
from dl_techniques.models.vision.mobile_one.config import MobileOneConfig, load_variants
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


@keras.saving.register_keras_serializable(package="dl_techniques")
class MobileOneStage(Reparameterizable, LayerOfParts):
    """Pairs of a depthwise 3x3 and a pointwise block: float[B,H,W,C] -> float[B,H',W',filters].

    The first pair halves the sides. All blocks end in ReLU.

    Args:
        filters: int. Output channels.
        depth: int. Number of pairs.
        num_conv_branches: int. Of every block. Defaults to 1.
        se_depth: int. Pairs at the end with squeeze-and-excitation. Defaults to 0.
        reparameterized: bool. Start in inference form. Defaults to `False`.
        **kwargs: name, dtype.

    Example:
        >>> import numpy as np
        >>> tuple(MobileOneStage(8, depth=2)(np.ones((1, 8, 6, 4), "float32")).shape[1:])
        (4, 3, 8)
    """

    def __init__(
        self,
        filters: int,
        depth: int,
        num_conv_branches: int = 1,
        se_depth: int = 0,
        reparameterized: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.depth = filters, depth
        self.num_conv_branches, self.se_depth = num_conv_branches, se_depth
        self._starts_fused = reparameterized
        self.blocks: list[MobileOneBlock] = []

    def build(self, input_shape: Shape) -> None:
        """Creates the blocks, the first of which needs the input's channels."""
        shape = tuple(input_shape)
        for pair in range(self.depth):
            for block in self._pair(pair, int(shape[-1] or 0)):
                self.blocks.append(block)
                block.build(shape)
                shape = block.compute_output_shape(shape)

    def _pair(self, pair: int, channels: int) -> list[MobileOneBlock]:
        options: dict[str, Any] = {
            "use_se": pair >= self.depth - self.se_depth,
            "activation": "relu",
            "num_conv_branches": self.num_conv_branches,
            "reparameterized": self._starts_fused,
            "dtype": self.dtype_policy,
        }
        stride = 2 if pair == 0 else 1
        return [
            MobileOneBlock(channels, 3, stride, True, name=f"depthwise_{pair}", **options),
            MobileOneBlock(self.filters, 1, name=f"pointwise_{pair}", **options),
        ]

    def call(self, inputs: Tensor, training: bool | None = None) -> Any:
        """Applies the blocks."""
        for block in self.blocks:
            inputs = block(inputs, training=training)
        return inputs

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """float[B, ceil(H / 2), ceil(W / 2), filters]."""
        batch, *sides, _ = input_shape
        height, width = (None if side is None else -(-side // 2) for side in sides)
        return (batch, height, width, self.filters)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the current form included."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "depth": self.depth,
            "num_conv_branches": self.num_conv_branches,
            "se_depth": self.se_depth,
            "reparameterized": self.reparameterized if self.blocks else self._starts_fused,
        }


@keras.saving.register_keras_serializable(package="dl_techniques")
class MobileOne(SwitchableModel):
    """Stem of stride 2, stages that halve the sides, pooling, classifier.

    float[B, H, W, 3] in -> float[B, num_classes] logits out, or with `include_top=False` the last
    feature map, float[B, ceil(H / 32), ceil(W / 32), C]. Pixels are expected in [0, 1], or 0..255
    with `include_preprocessing=True`.

    Args:
        num_classes: int. 0 gives the pooled features, float[B, C]. Defaults to 1000.
        embed_dims: channels of each stage. Defaults to those of S0.
        depths: pairs of blocks in each stage. Defaults to (2, 8, 10, 1).
        stem_dim: int. Channels of the stem. Defaults to 48.
        num_conv_branches: int. k x k branches of every block but the stem. Defaults to 1.
        se_depths: pairs with SE at the end of each stage. Defaults to none.
        include_top: bool. Pool and classify. Defaults to `True`.
        input_shape: (H, W, 3); H and W may be `None`. Defaults to (None, None, 3).
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
        >>> model = MobileOne.from_variant("mobileone_s1", num_classes=10)
        >>> model(np.ones((1, 64, 64, 3), "float32")).shape[1]
        10
        >>> model.reparameterize()
        >>> model.reparameterized
        True

    Reference: Vasu et al., "MobileOne", arXiv:2206.04040.
    """

    MODEL_VARIANTS: ClassVar[Mapping[str, MobileOneConfig]] = load_variants()
    num_classes: int
    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    stem_dim: int
    num_conv_branches: int
    se_depths: tuple[int, ...] | None

    def __init__(
        self,
        num_classes: int = 1000,
        embed_dims: Sequence[int] = (48, 128, 256, 1024),
        depths: Sequence[int] = (2, 8, 10, 1),
        stem_dim: int = 48,
        num_conv_branches: int = 1,
        se_depths: Sequence[int] | None = None,
        include_top: bool = True,
        input_shape: Sequence[int | None] = (None, None, 3),
        classifier_activation: str | None = None,
        reparameterized: bool | str | Mapping[str, bool] = False,
        preprocessing: Preprocessing | Mapping[str, Any] | None = None,
        name: str = "mobile_one",
        dtype: Any = None,
        include_preprocessing: bool = False,
    ) -> None:
        config = MobileOneConfig(
            embed_dims=tuple(embed_dims),
            depths=tuple(depths),
            stem_dim=stem_dim,
            num_conv_branches=num_conv_branches,
            se_depths=None if se_depths is None else tuple(se_depths),
            num_classes=num_classes,
        )
        check_input_shape(input_shape)

        # === Layers ===
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        stem = MobileOneBlock(stem_dim, 3, 2, activation="relu", name="stem", dtype=policy)
        stages = [_stage(config, i, policy) for i in range(len(config.depths))]
        head = _head(num_classes, classifier_activation, policy) if include_top else []

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
            for layer in [*rescaling, stem, *stages, *head]:
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
        self.stem, self.stages, self.head = stem, stages, head
        self.start_in(reparameterized)

    @classmethod
    def from_variant(cls, name: str, /, **overrides: Any) -> MobileOne:
        """A network by name, randomly initialised.

        The network takes float[B, H, W, 3] with **pixels in [0, 1]**, normalised by the variant's
        `mean` and `std` where it has some (see `preprocessing`). Pixels 0..255, which
        `keras.utils.image_dataset_from_directory` gives, are for `include_preprocessing=True`.

        Args:
            name: one of `MODEL_VARIANTS`.
            **overrides: constructor arguments that replace the variant's.

        Raises:
            VariantError: unknown name (the nearest is given) or argument.

        Example:
            >>> MobileOne.from_variant("mobileone_s0", include_top=False).feature_dim
            1024
        """
        arguments = variant_arguments(name)
        check_overrides(cls, overrides, {*arguments, *_FREE})
        return cls(**{**arguments, **overrides})

    @property
    def feature_dim(self) -> int:
        """Channels of the last feature map."""
        return self.config.embed_dims[-1]

    @property
    def total_stride(self) -> int:
        """Input pixels per place of the last feature map, along one side."""
        return self.config.total_stride

    def extract_features(self, images: Tensor, training: bool = False) -> list[Any]:
        """The stem's map, then each stage's: float[B, H / s, W / s, C] with s = 2, 4, 8, 16, 32.

        Args:
            images: float[B, H, W, 3].
            training: bool. Defaults to `False`.

        Returns:
            One map more than there are stages. They equal the tensors inside the forward pass.
        """
        features = [self.rescaled(images)]
        parts: list[Any] = [self.stem, *self.stages]
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


_PIXELS = tuple(FIELDS.values())


def variant_arguments(name: str) -> dict[str, Any]:
    """Constructor arguments of a variant.

    Raises:
        VariantError: unknown name (the nearest is given).
    """
    config = MobileOneConfig.from_variant(name)
    arguments = {k: v for k, v in dataclasses.asdict(config).items() if k not in _PIXELS}
    return {**arguments, "preprocessing": Preprocessing.of(config), "name": name}


def _default_preprocessing(config: MobileOneConfig) -> Preprocessing:
    """What the variant with these layers says."""
    same = [c for c in load_variants().values() if c.same_network(config)]
    return Preprocessing.of(same[0] if same else config)


def _stage(config: MobileOneConfig, index: int, policy: keras.DTypePolicy) -> MobileOneStage:
    return MobileOneStage(
        config.embed_dims[index],
        config.depths[index],
        config.num_conv_branches,
        config.se_depth(index),
        name=f"stage_{index + 1}",
        dtype=policy,
    )


def _head(classes: int, activation: str | None, policy: keras.DTypePolicy) -> list[Any]:
    """Global average pooling, classifier."""
    pool = keras.layers.GlobalAveragePooling2D("channels_last", name="pool", dtype=policy)
    layers: list[Any] = [pool]
    if classes:
        layers.append(
            keras.layers.Dense(
                classes,
                activation=activation,
                kernel_initializer=HostTruncatedNormal(),
                name="head",
                dtype=policy,
            )
        )
    return layers
