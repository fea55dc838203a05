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
from dl_techniques.loading.load import VLM_CLASS, class_of
from dl_techniques.models.vision.efficientnet_lite.model import EfficientNetLite
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from dl_techniques.models.vision.mobile_one.model import MobileOne

INPUT = "image"
NETWORKS = (FastVLM, MobileOne, EfficientNetLite)
Size = tuple[int, int]


def resolve_part(model: Any, part: str, parts: tuple[str, ...]) -> str:
    """The part that is meant.

    Args:
        model: the source.
        part: as asked for; "auto" for what the source is made for.
        parts: what the format can.

    Raises:
        ExportError: the source has no such part.
    """
    is_vlm = class_of(model) == VLM_CLASS
    able = ["vlm", "encoder"] if is_vlm else ["encoder", "features"]
    if not is_vlm and model.include_top:
        able.insert(0, "classifier")
    able = [name for name in able if name in parts]
    if part == "auto" and able:
        return able[0]
    if part not in able:
        raise ExportError(
            f"{model.name} has no part {part!r} for this format; it has {', '.join(able) or 'none'}"
        )
    return part


def size_of(model: Any, image_size: int | None) -> Size:
    """Height and width of the pictures that the exported network takes.

    Args:
        model: the source.
        image_size: side in pixels as asked for, or None.

    Raises:
        ExportError: the network cannot take this size.
    """
    encoder = model.backbone.vision_encoder if class_of(model) == VLM_CLASS else model
    height, width, channels = encoder.input_shape[1:]
    if channels != 3:
        raise ExportError(f"{model.name} takes {channels} channels; pictures have 3")
    if image_size is None:
        default = _default_side(model)
        return (height or default, width or default)
    if not isinstance(encoder, NETWORKS):
        if (image_size, image_size) != (height, width):
            raise ExportError(
                f"{encoder.name} takes pictures of {height} x {width} pixels only, got {image_size}"
            )
    elif image_size < encoder.total_stride:
        raise ExportError(
            f"{encoder.name} cannot take pictures of {image_size} pixels: one place of its last "
            f"map covers {encoder.total_stride}; give at least that"
        )
    return (image_size, image_size)


def _default_side(model: Any) -> int:
    converter = getattr(getattr(model, "preprocessor", None), "image_converter", None)
    if converter is not None:
        return int(converter.image_size[0])
    return int(model.preprocessing.size) if hasattr(model, "preprocessing") else 256


def refuse_quantized(model: Any) -> None:
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


def copy_of(model: Any, size: Size, dtype: str = "float32") -> Any:
    """A copy for pictures of a size; the model itself does not change.

    Args:
        model: a vision network, or the `ImageEmbedding` of a vision-language model.
        size: (H, W).
        dtype: of all its layers.

    Raises:
        ExportError: a layer is quantized.
    """
    refuse_quantized(model)
    config = model.get_config()
    if isinstance(model, NETWORKS):
        copy = type(model).from_config(_at_size(config, size, dtype))
    else:
        for name in ("vision_encoder", "projector", "selector"):
            config[name]["config"]["dtype"] = dtype
        if isinstance(model.vision_encoder, NETWORKS):
            inner = config["vision_encoder"]
            inner["config"] = _at_size(inner["config"], size, dtype)
        copy = type(model).from_config(config)
        copy.build((None, 1, *size, 3))
    copy.set_weights(model.get_weights())
    return copy


def _at_size(config: dict[str, Any], size: Size, dtype: str) -> dict[str, Any]:
    return {**config, "input_shape": [*size, 3], "dtype": dtype}


def fuse(copy: Any) -> None:
    """Fuses and folds everything that can be."""
    network = getattr(copy, "vision_encoder", copy)
    if isinstance(network, NETWORKS):
        network.reparameterize(fold=True)


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
    if isinstance(copy, NETWORKS):
        outputs = _parts_of(copy, part)(pixels)
    else:
        outputs = {"image_embeddings": copy.embed(pixels)}
    return keras.Model(image, outputs, name=f"{part}_to_export")


def _parts_of(network: Any, part: str) -> keras.Model:
    """The same graph with another end."""
    if part == "classifier":
        outputs = {_score_name(network): network.output}
    elif part == "features":
        outputs = {"stem": network.stem.output}
        outputs |= {f"stage_{i}": stage.output for i, stage in enumerate(network.stages, 1)}
    elif network.include_top:
        last = getattr(network, "tail", None) or network.stages[-1]
        outputs = {"features": last.output}
    else:
        outputs = {"features": network.output}
    return keras.Model(network.input, outputs, name=part)


def _score_name(network: Any) -> str:
    if not network.num_classes:
        return "pooled_features"
    return "logits" if network.classifier_activation is None else "scores"
