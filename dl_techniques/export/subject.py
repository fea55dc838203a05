"""What one export is about: the network to write, the one to compare with, and their pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from dl_techniques.data.images import ImageSource
from dl_techniques.data.preprocessing import BYTES, UNIT
from dl_techniques.export.networks import assemble, copy_of, fuse, size_of
from dl_techniques.export.pictures import picture_files, shipped_photographs
from dl_techniques.models.picture_network import Size, picture_network

Outputs = dict[str, np.ndarray]

PIXELS = (
    "input `image`: float32[{batch}, {height}, {width}, 3], RGB in {pixels}; the network's mean "
    "and standard deviation are inside"
)


@dataclass(frozen=True)
class Subject:
    """A part of a model, ready to be written.

    Attributes:
        reference: keras.Model of the part as the source is.
        deployed: the same, fused and folded, with the batch that the file will have.
        in_float16: makes the same in float16 arithmetic, as some runtimes compute.
        size: (H, W).
        to_bytes: brings a picture of any kind to uint8[H, W, 3].
        pixels: what the pixels of the input lie in, "[0, 1]" or "[0, 255]".
    """

    reference: keras.Model
    deployed: keras.Model
    in_float16: Callable[[], keras.Model]
    size: Size
    to_bytes: Callable[[ImageSource], np.ndarray]
    pixels: str = UNIT

    def inputs(self, folder: str | Path | None, most: int) -> list[np.ndarray]:
        """float32[1, H, W, 3], as files take them, of a folder's pictures or the shipped ones.

        Raises:
            ExportError: no such folder, or no pictures in it.
            ImageError: one of them cannot be read.
        """
        sources: list[Path] = (
            shipped_photographs() if folder is None else picture_files(folder, most)
        )
        largest = np.float32(1 if self.pixels == BYTES else 255)
        return [self.to_bytes(source)[None] / largest for source in sources]

    def expected(self, inputs: list[np.ndarray]) -> Outputs:
        """What Keras computes from pictures, one after the other: name -> float[N, ...]."""
        return outputs_of(self.reference, inputs)


def outputs_of(network: keras.Model, inputs: list[np.ndarray]) -> Outputs:
    """Named outputs of a network for pictures float32[1, H, W, 3], joined: float32[N, ...]."""
    results = [network(image, training=False) for image in inputs]
    return {
        name: np.concatenate(
            [keras.ops.convert_to_numpy(keras.ops.cast(r[name], "float32")) for r in results]
        )
        for name in results[0]
    }


def make_subject(
    model: keras.Model, part: str, image_size: int | None, dynamic_batch: bool
) -> Subject:
    """Copies a part of a model and fuses the copy; the model itself does not change.

    Args:
        model: a `PictureNetwork`.
        part: "classifier", "features" or "encoder".
        image_size: side in pixels, or None for the model's own.
        dynamic_batch: leave the number of pictures open.

    Raises:
        ExportError: a size that the network cannot take, or a quantized model.
    """
    size = size_of(model, image_size)
    network = picture_network(model)
    plain, fused = copy_of(model, size), copy_of(model, size)
    fuse(fused)
    rule = network.picture_rule(size)
    colours = (rule.mean, rule.std)
    return Subject(
        assemble(plain, part, size, colours, None),
        assemble(fused, part, size, colours, None if dynamic_batch else 1),
        lambda: assemble(copy_of(fused, size, "float16"), part, size, colours, 1),
        size,
        rule.to_bytes,
        rule.lies_in,
    )
