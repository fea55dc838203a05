"""What the vision networks say of themselves as `PictureNetwork`."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import keras
import numpy as np

from dl_techniques.data.geometry import center_crop, resize, resize_shortest_edge
from dl_techniques.data.images import ImageSource, load_image
from dl_techniques.data.preprocessing import BYTES, Preprocessing
from dl_techniques.models.picture_network import PictureRule, Size
from dl_techniques.typing import Tensor

FORMS = ("branched", "fused", "folded")


class PictureParts:
    """The answers of a classifier, or of an encoder, made of stem, stages and head."""

    preprocessing: Preprocessing
    include_preprocessing: bool
    include_top: bool

    @property
    def input_size(self) -> Size:
        """Height and width of its input; where that is open, of its preprocessing."""
        network: Any = self
        height, width = network.input_shape[1:3]
        side = int(self.preprocessing.size)
        return (height or side, width or side)

    @property
    def forms(self) -> tuple[str, ...]:
        """Branched, fused, folded."""
        return FORMS

    def parts(self) -> tuple[str, ...]:
        """Its scores, its last map, and all its maps."""
        return ("classifier", "encoder", "features")[0 if self.include_top else 1 :]

    def picture_encoder(self) -> Any:
        """Itself."""
        return self

    def picture_rule(self, size: Size) -> PictureRule:
        """Shorter side resized, centre cropped; bytes where its own layers scale them."""
        preprocessing = self.preprocessing
        side = dataclasses.replace(preprocessing, size=size[0]).resized_side
        filter_name: Any = preprocessing.interpolation

        def to_bytes(source: ImageSource) -> np.ndarray:
            picture = load_image(source)
            if size[0] != size[1]:
                return resize(picture, *size, filter_name)
            return center_crop(resize_shortest_edge(picture, side, filter_name), *size)

        if self.include_preprocessing:
            return PictureRule(to_bytes, lies_in=BYTES)
        return PictureRule(to_bytes, preprocessing.mean, preprocessing.std)

    def copy(self, size: Size, dtype: str = "float32") -> Self:
        """The same network in the same form with another size and type."""
        network: Any = self
        config = {**network.get_config(), "input_shape": [*size, 3], "dtype": dtype}
        copy = type(network).from_config(config)
        copy.set_weights(network.get_weights())
        return copy

    def fold(self) -> None:
        """Fuses and folds it."""
        network: Any = self
        network.reparameterize(fold=True)

    def part_outputs(self, part: str, images: Tensor) -> dict[str, Tensor]:
        """The same graph with another end."""
        network: Any = self
        if part == "classifier":
            outputs = {self._score_name(): network.output}
        elif part == "features":
            outputs = {"stem": network.stem.output}
            outputs |= {f"stage_{i}": stage.output for i, stage in enumerate(network.stages, 1)}
        elif self.include_top:
            last = getattr(network, "tail", None) or network.stages[-1]
            outputs = {"features": last.output}
        else:
            outputs = {"features": network.output}
        found: dict[str, Tensor] = keras.Model(network.input, outputs, name=part)(images)
        return found

    def _score_name(self) -> str:
        network: Any = self
        if not network.num_classes:
            return "pooled_features"
        return "logits" if network.classifier_activation is None else "scores"
