"""From pictures to rows of the decoder's input: encoder, projector, and the splice into the text.

Three layers, one per arrow of

    float[B, N, S, S, 3] -> features float[B*N, h, w, C] -> float[B, N*T, D] -> float[B, L, D]

with `T = h * w` rows per picture, or fewer where some are to be kept only.

They are the adapter between the two modalities: the decoder's own layers attend to picture rows as
to words, so no layer of cross-attention stands between them.

Reference: LLaVA 1.5, https://arxiv.org/abs/2310.03744
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from dl_techniques.layers.freezing import LayerOfParts
from dl_techniques.layers.token_selector import TokenSelector
from dl_techniques.models.picture_network import (
    PictureRule,
    Size,
    encoder_network,
    padded_square,
)
from dl_techniques.models.vlm.fast_vlm.network.projector import Projector as Projector
from dl_techniques.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="dl_techniques")
class ImageEmbedding(LayerOfParts):
    """Encodes pictures and projects them to the decoder's width.

    A batch without pictures (`N == 0`) skips the encoder: convolutions refuse an empty batch on
    some backends, and there is nothing to compute.

    Args:
        vision_encoder: keras.Model. float[M, S, S, 3] -> float[M, h, w, C].
        projector: Layer. float[M, h * w, C] -> float[M, P, D]; P is h * w, unless it pools.
        selector: TokenSelector or None. float[M, P, D] -> float[M, T, D]. None: all rows.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.
    """

    def __init__(
        self,
        vision_encoder: keras.Model,
        projector: keras.layers.Layer,
        selector: TokenSelector | None = None,
        **kwargs: Any,
    ) -> None:
        # The encoder has a data type of its own: pictures must reach it as they came.
        super().__init__(autocast=False, **kwargs)
        self.vision_encoder = vision_encoder
        self.projector = projector
        self.selector = TokenSelector(None, name="selector") if selector is None else selector

    def build(self, input_shape: Shape) -> None:
        """Creates the weights of projector and selector; the encoder comes built."""
        if not self.projector.built:
            self.projector.build((None, None, self._feature_shape(input_shape)[-1]))
        if not self.selector.built:
            self.selector.build((None, None, self.projector.output_dim))
        self.built = True

    def _feature_shape(self, input_shape: Shape) -> Shape:
        shape: Shape = self.vision_encoder.compute_output_shape((None, *input_shape[2:]))
        return shape

    def call(self, images: Tensor) -> Tensor:
        """float[B, N, S, S, 3] -> float[B, N * T, D]."""
        batch = ops.shape(images)[0]
        if images.shape[1] == 0:
            empty = (batch, 0, self.projector.output_dim)
            return ops.zeros(empty, self.projector.compute_dtype)
        rows = self.embed(ops.reshape(images, (-1, *ops.shape(images)[2:])))
        return ops.reshape(rows, (batch, -1, rows.shape[-1]))

    def embed(self, pictures: Tensor) -> Tensor:
        """Embeds a flat batch of pictures: float[M, S, S, 3] -> float[M, T, D]."""
        features = self.vision_encoder(pictures)
        shape = ops.shape(features)
        rows = self.projector(ops.reshape(features, (-1, shape[1] * shape[2], shape[3])))
        return self.selector(rows)

    # What `PictureNetwork` asks.

    @property
    def input_size(self) -> Size:
        """The encoder's."""
        return encoder_network(self.vision_encoder).input_size

    @property
    def total_stride(self) -> int | None:
        """The encoder's; None where it takes pictures of one size only."""
        return encoder_network(self.vision_encoder).total_stride

    @property
    def forms(self) -> tuple[str, ...]:
        """The encoder's."""
        return encoder_network(self.vision_encoder).forms

    def parts(self) -> tuple[str, ...]:
        """The rows that a decoder reads."""
        return ("encoder",)

    def picture_encoder(self) -> keras.Model:
        """The encoder."""
        return self.vision_encoder

    def picture_rule(self, size: Size) -> PictureRule:
        """A plain one: padded to a square, pixels in [0, 1]."""
        return padded_square(size)

    def copy(self, size: Size, dtype: str = "float32") -> ImageEmbedding:
        """The same for pictures of another size, if the encoder takes it, and in another type."""
        config = self.get_config()
        for name in _PARTS:
            config[name]["config"]["dtype"] = dtype
        if self.total_stride is not None:
            config["vision_encoder"]["config"]["input_shape"] = [*size, 3]
        copy = type(self).from_config(config)
        copy.build((None, 1, *size, 3))
        copy.set_weights(self.get_weights())
        return copy

    def fold(self) -> None:
        """Fuses and folds the encoder."""
        encoder_network(self.vision_encoder).fold()

    def part_outputs(self, part: str, images: Tensor) -> dict[str, Tensor]:
        """float[M, S, S, 3] -> the rows, float[M, T, D]."""
        return {"image_embeddings": self.embed(images)}

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, N, S, S, 3) -> (B, N * T, D); an unknown size stays unknown."""
        _, height, width, _ = self._feature_shape(input_shape)
        places = None if height is None or width is None else height * width
        projected = self.projector.compute_output_shape((None, places, None))
        rows = self.selector.compute_output_shape(projected)[1]
        if input_shape[1] is None or rows is None or places is None:
            return (input_shape[0], None, self.projector.output_dim)
        return (input_shape[0], input_shape[1] * rows, self.projector.output_dim)

    def compute_output_spec(self, images: Tensor, **kwargs: Any) -> keras.KerasTensor:
        """Shape and data type: the projector's."""
        shape = self.compute_output_shape(tuple(images.shape))
        return keras.KerasTensor(shape, dtype=self.projector.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, the parts serialized."""
        config = super().get_config()
        return {
            **config,
            "vision_encoder": keras.saving.serialize_keras_object(self.vision_encoder),
            "projector": keras.saving.serialize_keras_object(self.projector),
            "selector": keras.saving.serialize_keras_object(self.selector),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ImageEmbedding:
        """Rebuilds the parts."""
        parts = {k: keras.saving.deserialize_keras_object(config[k]) for k in _PARTS if k in config}
        return cls(**{**config, **parts})


_PARTS = ("vision_encoder", "projector", "selector")


@keras.saving.register_keras_serializable(package="dl_techniques")
class ImageSplice(keras.layers.Layer):
    """Puts the rows of the pictures at their places among the embeddings of the tokens.

    `vision_indices` says for every picture row which position of the text it replaces. An index
    of `L` (one past the end) marks a row of an unused picture slot: it goes nowhere.

    Args:
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Example:
        >>> import numpy as np
        >>> text, rows = np.zeros((1, 3, 2), "float32"), np.ones((1, 2, 2), "float32")
        >>> out = ImageSplice()(text, rows, np.array([[1, 3]]))
        >>> keras.ops.convert_to_numpy(out)[0, :, 0].tolist()
        [0.0, 1.0, 0.0]
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    def call(self, embeddings: Tensor, image_embeddings: Tensor, vision_indices: Tensor) -> Tensor:
        """Replaces rows of the text by rows of the pictures.

        Args:
            embeddings: float[B, L, D].
            image_embeddings: float[B, M, D].
            vision_indices: int[B, M], each in `0 .. L`.

        Returns:
            float[B, L, D], in the data type of `embeddings`.
        """
        if image_embeddings.shape[1] == 0:
            return embeddings
        rows = ops.cast(image_embeddings, embeddings.dtype)
        source = self._source_of_positions(embeddings, vision_indices)
        # Row 0 is a row of zeros in front: "no picture here". Gathering keeps the gradient plain.
        rows = ops.pad(rows, [(0, 0), (1, 0), (0, 0)])
        picked = ops.take_along_axis(rows, source[:, :-1, None], axis=1)
        return ops.where(source[:, :-1, None] > 0, picked, embeddings)

    def _source_of_positions(self, embeddings: Tensor, vision_indices: Tensor) -> Tensor:
        """int[B, L + 1]: 1 + the picture row that goes to a position, 0 for none."""
        batch, length = ops.shape(embeddings)[0], ops.shape(embeddings)[1]
        rows = ops.shape(vision_indices)[1]
        indices = ops.cast(vision_indices, "int32")
        batch_of = ops.broadcast_to(ops.arange(batch, dtype="int32")[:, None], (batch, rows))
        places = ops.stack([ops.reshape(batch_of, (-1,)), ops.reshape(indices, (-1,))], axis=-1)
        numbers = ops.broadcast_to(ops.arange(1, rows + 1, dtype="int32")[None], (batch, rows))
        empty = ops.zeros((batch, length + 1), "int32")
        return ops.scatter_update(empty, places, ops.reshape(numbers, (-1,)))

    def compute_output_spec(
        self, embeddings: Tensor, image_embeddings: Tensor, vision_indices: Tensor
    ) -> keras.KerasTensor:
        """Shape and data type of the text's embeddings."""
        return keras.KerasTensor(embeddings.shape, dtype=embeddings.dtype)
