"""The network that is written: the right part, at its size, fused and folded.

Every exported vision network takes `image`, float32[B, H, W, 3], RGB in [0, 1]; one that was made
with `include_preprocessing=True` takes 0..255, as in Keras. The colours' mean and standard
deviation are part of the network, so that a host at most divides bytes by 255.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from dl_techniques.compat.keras_layers import all_parts
from dl_techniques.errors import ExportError
from dl_techniques.models.picture_network import Size, picture_network

INPUT = "image"


def resolve_part(model: keras.Model, part: str, parts: tuple[str, ...]) -> str:
    """The part that is meant.

    Args:
        model: the source.
        part: as asked for; "auto" for what the source is made for.
        parts: what the format can.

    Raises:
        ExportError: the source has no such part.
    """
    able = [name for name in picture_network(model).parts() if name in parts]
    if part == "auto" and able:
        return able[0]
    if part not in able:
        raise ExportError(
            f"{model.name} has no part {part!r} for this format; it has {', '.join(able) or 'none'}"
        )
    return part


def size_of(model: keras.Model, image_size: int | None) -> Size:
    """Height and width of the pictures that the exported network takes.

    Args:
        model: the source.
        image_size: side in pixels as asked for, or None.

    Raises:
        ExportError: the network cannot take this size.
    """
    network = picture_network(model)
    encoder = network.picture_encoder()
    height, width, channels = encoder.input_shape[1:]
    if channels != 3:
        raise ExportError(f"{model.name} takes {channels} channels; pictures have 3")
    if image_size is None:
        return network.input_size
    if network.total_stride is None:
        if (image_size, image_size) != (height, width):
            raise ExportError(
                f"{encoder.name} takes pictures of {height} x {width} pixels only, got {image_size}"
            )
    elif image_size < network.total_stride:
        raise ExportError(
            f"{encoder.name} cannot take pictures of {image_size} pixels: one place of its last "
            f"map covers {network.total_stride}; give at least that"
        )
    return (image_size, image_size)


def refuse_quantized(model: keras.Model) -> None:
    """Refuses layers that Keras itself has quantized.

    LiteRT files of such models fail, or give wrong numbers without a word (int4).

    Raises:
        ExportError: says what to do instead.
    """
    for layer in all_parts(model, include_self=True):
        if getattr(layer, "quantization_mode", None) is not None:
            raise ExportError(
                f"the layer {layer.name} was quantized by Keras, which no format takes soundly; "
                "export the float model and choose a precision here"
            )


def copy_of(model: keras.Model, size: Size, dtype: str = "float32") -> Any:
    """A copy for pictures of a size; the model itself does not change.

    Args:
        model: a vision network, or a vision-language model (its `ImageEmbedding` is copied).
        size: (H, W).
        dtype: of all its layers.

    Raises:
        ExportError: a layer is quantized.
    """
    refuse_quantized(model)
    return picture_network(model).copy(size, dtype)


def fuse(copy: Any) -> None:
    """Fuses and folds everything that can be."""
    picture_network(copy).fold()


def assemble(
    copy: Any, part: str, size: Size, colours: tuple[Any, Any], batch: int | None
) -> keras.Model:
    """A model from `image` to a dict of named outputs.

    Args:
        copy: from `copy_of`.
        part: "classifier", "features" or "encoder".
        size: (H, W).
        colours: mean and standard deviation of the three channels.
        batch: number of pictures, or None to leave it open.
    """
    image = keras.Input((*size, 3), batch_size=batch, name=INPUT, dtype="float32")
    mean, std = (np.asarray(values, "float32") for values in colours)
    plain = not mean.any() and bool((std == 1).all())
    pixels = image if plain else (image - mean) / std
    outputs = picture_network(copy).part_outputs(part, pixels)
    return keras.Model(image, outputs, name=f"{part}_to_export")
