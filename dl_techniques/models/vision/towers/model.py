"""Several networks look at one picture, each at its own size; a decoder reads all their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques.data.preprocessing import UNIT
from dl_techniques.errors import VariantError
from dl_techniques.layers.freezing import flags_config
from dl_techniques.layers.name_tags import NameTags, Tags
from dl_techniques.layers.picture_resize import PictureResize, PixelScale
from dl_techniques.models.picture_network import PictureRule, Size, encoder_network, padded_square
from dl_techniques.models.vision.arguments import check_input_shape
from dl_techniques.models.vision.picture_parts import FORMS
from dl_techniques.models.vision.switchable_model import SwitchableModel, paths_below
from dl_techniques.models.vision.towers.certainty import certainty_of_tags
from dl_techniques.typing import Shape, Tensor


@keras.saving.register_keras_serializable(package="dl_techniques")
class Towers(SwitchableModel):
    """Vision networks side by side, and name tags: float[B, H, W, 3] -> float[B, 1, T, C].

    Every network gets the same picture, resized inside the graph by `PictureResize`, with the mean
    and deviation that it wants (its `picture_rule`). Its map is read row by row; the rows of all
    stand one behind the other, each in channels of its own (zeros elsewhere), so that the first
    dense layer of a projector is a layer of its own for each. With `tags` the last network is asked
    for names only: `NameTags` makes rows of what it knows, and its map has no rows.

    Args:
        networks: two or more Keras models, float[B, h, w, 3] -> float[B, m, n, C], each of one
            input size. A network that says nothing of its pixels gets them in [0, 1].
        tags: `NameTags`, or None.
        input_shape: (H, W, 3) of the picture. Defaults to that of the last network.
        name: str.
        dtype: policy of the joints; the networks keep their own.

    Raises:
        VariantError: fewer than two networks or an open size.

    Example:
        >>> import keras, numpy as np
        >>> from dl_techniques import FastVLM
        >>> small = FastVLM.from_variant("nano", include_top=False, input_shape=(32, 32, 3))
        >>> picture = keras.Input((64, 64, 3))
        >>> other = keras.Model(picture, keras.layers.Conv2D(6, 32, 32)(picture))
        >>> both = Towers([small, other])
        >>> both.input_shape, tuple(both(np.zeros((1, 64, 64, 3), "float32")).shape)
        ((None, 64, 64, 3), (1, 1, 8, 102))

    Reference: two encoders read as one sequence of rows, as in Cambrian-1 (arXiv:2406.16860,
    section 3); name tags as text for a decoder, as in Tag2Text (arXiv:2303.05657).
    """

    total_stride: int | None = None

    def __init__(
        self,
        networks: Sequence[keras.Model],
        tags: NameTags | None = None,
        input_shape: Sequence[int] | None = None,
        name: str = "towers",
        dtype: Any = None,
    ) -> None:
        if len(networks) < 2:
            raise VariantError(f"Towers needs two or more networks, got {len(networks)}")
        shape = tuple(input_shape or networks[-1].input_shape[1:])
        check_input_shape(shape)
        for network in networks:
            if None in network.input_shape[1:]:
                raise VariantError(
                    f"{network.name} takes pictures of any size; build it with an input_shape, "
                    "e.g. (224, 224, 3)"
                )

        # === Layers ===
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        joints = [_joint(network, shape, policy) for network in networks]
        read = list(networks) if tags is None else list(networks[:-1])
        widths = [int(network.output_shape[-1]) for network in read]
        widths += [] if tags is None else [tags.width]
        rows = [
            SideBySide(sum(widths[:i]), sum(widths), dtype=policy, name=f"rows_{i}")
            for i in range(len(widths))
        ]

        # === Functional Model ===
        image = keras.Input(shape=shape, name="image", dtype="float32")
        with paths_below(name):
            parts: list[Any] = []
            for network, joint in zip(networks, joints, strict=True):
                x: Any = image
                for layer in [*joint, network]:
                    x = layer(x)
                parts.append(x)
            if tags is not None:
                parts[-1] = tags(parts[-1])
            parts = [layer(x) for layer, x in zip(rows, parts, strict=True)]
            outputs = keras.layers.Concatenate(axis=2, name="all_rows", dtype=policy)(parts)
        super().__init__(inputs=image, outputs=outputs, name=name)

        # === Config ===
        self.networks, self.tags = list(networks), tags
        self._joint_of_tags = joints[-1]
        self.image_shape = shape
        self.dtype_policy = policy
        self.start_as_built()

    @property
    def num_tag_rows(self) -> int:
        """Rows at the end that tell tags, which a shorter prompt keeps; 0 without tags."""
        return 0 if self.tags is None else self.tags.num_rows

    def tower(self, kind: type) -> keras.Model:
        """The network of a class.

        Raises:
            LookupError: there is none.
        """
        for network in self.networks:
            if isinstance(network, kind):
                return network
        raise LookupError(f"{self.name} has no {kind.__name__}")

    def tags_of(self, images: Tensor) -> Tags:
        """What the photo tower knows of pictures.

        Args:
            images: float[B, H, W, 3], as the network is called with.

        Raises:
            LookupError: the network has no tags.
        """
        tags = self._tag_layer()
        x: Any = images
        for layer in [*self._joint_of_tags, self.networks[-1]]:
            x = layer(x)
        return tags.tags(x)

    def _tag_layer(self) -> NameTags:
        if self.tags is None:
            raise LookupError(f"{self.name} has no name tags")
        return self.tags

    def names_of(self, images: Tensor, best: int = 3) -> list[list[tuple[str, float]]]:
        """The likeliest names of each picture and the probability that each is right.

        Args:
            images: float[B, H, W, 3], as the network is called with.
            best: names a picture.

        Raises:
            LookupError: the network has no tags.
        """
        found = [ops.convert_to_numpy(part) for part in self.tags_of(images)]
        chances = found[0] * found[1][:, None]
        names = self._tag_layer().names
        return [[(names[i], float(row[i])) for i in row.argsort()[::-1][:best]] for row in chances]

    def answer_certainty(self, question: str, answer: str, pictures: np.ndarray) -> float | None:
        """The probability that an answer about one photograph is right, from the tags.

        Args:
            question: what was asked.
            answer: what was said.
            pictures: float[N, H, W, 3], as the network is called with.

        Returns:
            Of an answer with names: the probability that it is one of them; of one that says it is
            not sure: the best name's. Of a yes or no about people: that of a person, or of none.
            None where tags say nothing about it: no photograph, several pictures, other questions.
        """
        if self.tags is None or len(pictures) != 1:
            return None
        found = self.tags_of(pictures)
        names, known, facts = (np.asarray(ops.convert_to_numpy(part))[0] for part in found)
        return certainty_of_tags(self.tags, names, float(known), facts, question, answer)

    # What `PictureNetwork` asks.

    @property
    def input_size(self) -> Size:
        """Of the picture that all look at."""
        return (self.image_shape[0], self.image_shape[1])

    @property
    def forms(self) -> tuple[str, ...]:
        """Branched, fused, folded."""
        return FORMS

    def parts(self) -> tuple[str, ...]:
        """The rows."""
        return ("encoder",)

    def picture_encoder(self) -> Any:
        """Itself."""
        return self

    def picture_rule(self, size: Size) -> PictureRule:
        """Padded to a square, pixels in [0, 1]."""
        return padded_square(size)

    def copy(self, size: Size, dtype: str = "float32") -> Towers:
        """The same in another type; the towers keep their sizes.

        Raises:
            VariantError: another size.
        """
        if tuple(size) != self.input_size:
            raise VariantError(f"{self.name} takes pictures of {self.input_size}, got {size}")
        parts = [encoder_network(network) for network in self.networks]
        config = self.get_config()
        networks = [part.copy(part.input_size, dtype).picture_encoder() for part in parts]
        tags = None if self.tags is None else NameTags.from_config(self.tags.get_config())
        copy = type(self)(networks, tags, self.image_shape, config["name"], dtype)
        copy.set_weights(self.get_weights())
        return copy

    def part_outputs(self, part: str, images: Tensor) -> dict[str, Tensor]:
        """The rows."""
        return {"features": self(images)}

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, networks and tags serialized."""
        serialize = keras.saving.serialize_keras_object
        return {
            "networks": [serialize(network) for network in self.networks],
            "tags": None if self.tags is None else serialize(self.tags),
            "input_shape": list(self.image_shape),
            **self.quantization_config(),
            **flags_config(self),
            "name": self.name,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Towers:
        """The inverse of `get_config`."""
        revive = keras.saving.deserialize_keras_object
        networks = [revive(network) for network in config["networks"]]
        tags = None if config["tags"] is None else revive(config["tags"])
        return super().from_config({**config, "networks": networks, "tags": tags})


@keras.saving.register_keras_serializable(package="dl_techniques")
class SideBySide(keras.layers.Layer):
    """Rows of a map in channels of their own: float[B, m, n, C] -> float[B, 1, m * n, W].

    Args:
        before: channels of zeros in front.
        width: channels in all, W.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Example:
        >>> import numpy as np
        >>> tuple(SideBySide(2, 9)(np.ones((1, 2, 2, 3), "float32")).shape)
        (1, 1, 4, 9)
    """

    def __init__(self, before: int, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.before, self.width = before, width

    def call(self, features: Tensor) -> Tensor:
        """float[B, m, n, C] -> float[B, 1, m * n, W]."""
        _, height, width, channels = features.shape
        rows = ops.reshape(features, (-1, 1, height * width, channels))
        behind = self.width - self.before - channels
        return ops.pad(rows, [(0, 0), (0, 0), (0, 0), (self.before, behind)])

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """(B, 1, m * n, W)."""
        batch, height, width, _ = input_shape
        rows = None if height is None or width is None else height * width
        return (batch, 1, rows, self.width)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "before": self.before, "width": self.width}


def _joint(network: keras.Model, shape: tuple[int, ...], policy: Any) -> list[keras.layers.Layer]:
    """What brings a picture to a network: its size, its mean and deviation."""
    size = (int(network.input_shape[1]), int(network.input_shape[2]))
    rule = encoder_network(network).picture_rule(size)
    layers: list[Any] = []
    if size != shape[:2]:
        layers.append(PictureResize(size, name=f"{network.name}_resize", dtype="float32"))
    mean, std = (rule.mean, rule.std) if rule.lies_in == UNIT else ((0.0,) * 3, (1 / 255,) * 3)
    if any(mean) or any(value != 1 for value in std):
        layers.append(PixelScale(mean, std, name=f"{network.name}_pixels", dtype="float32"))
    return layers
