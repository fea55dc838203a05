"""Pictures to pixels for FastVLM: pad to a square (or crop one out), resize, scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras_hub import layers as hub_layers

from dl_techniques.compat.keras_hub_pipeline import in_tf_function
from dl_techniques.data.geometry import (
    Interpolation,
    crop_and_resize,
    interpolation_names,
    pad_and_resize,
)
from dl_techniques.data.images import MAX_PIXELS, load_image
from dl_techniques.errors import ImageError
from dl_techniques.models.presets.vlm_folder import PresetMixin
from dl_techniques.models.vlm.fast_vlm.network.backbone import FastVLMBackbone

MODES = ("pad", "crop")


@keras.saving.register_keras_serializable(package="dl_techniques")
class FastVLMImageConverter(PresetMixin, hub_layers.ImageConverter):
    """Turn pictures of any kind and size into `float32[N, S, S, 3]`.

    `mode="pad"` is Apple's preprocessing, bit for bit: centre the picture on a square of the
    mean colour (black for mean 0), resize it with Pillow's bicubic filter in 8 bit, divide by
    255, normalize. `mode="crop"` is what the Hugging Face conversion and Apple's phone app
    do: shorter edge to S, then the middle square. It runs in numpy and Pillow on every
    backend, and returns numpy arrays.

    Args:
        image_size: int or (S, S). Side of the result in pixels.
        mode: "pad" or "crop".
        interpolation: "bicubic", "bilinear", "lanczos" or "nearest".
        mean: three floats, in units of 0..1. Subtracted from the scaled picture.
        std: three floats. The difference is divided by them.
        max_pixels: int. Larger pictures are refused; a JPEG of up to four times as many is read
            at half its width and height.
        **kwargs: `name`, `dtype`, `trainable` of a Keras layer.

    Call arguments:
        inputs: One picture or a list of pictures; each is whatever
            `dl_techniques.data.load_image` reads. `[N, H, W, C]` is N pictures.

    Returns:
        float32[N, S, S, 3], or float32[S, S, 3] for a single picture.

    Raises:
        ImageError: a picture cannot be read.

    Example:
        >>> converter = FastVLMImageConverter(image_size=(64, 64))
        >>> converter([np.zeros((30, 50, 3), "uint8")]).shape
        (1, 64, 64, 3)

    Reference: Apple's FastVLM `llava/mm_utils.py`, https://github.com/apple/ml-fastvlm
    """

    backbone_cls = FastVLMBackbone

    def __init__(
        self,
        image_size: int | Sequence[int] = (256, 256),
        mode: Literal["pad", "crop"] = "pad",
        interpolation: Interpolation = "bicubic",
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        max_pixels: int = MAX_PIXELS,
        **kwargs: Any,
    ) -> None:
        if mode not in MODES:
            raise ValueError(f"mode={mode!r} is unknown; use one of {list(MODES)}.")
        if interpolation not in interpolation_names():
            raise ValueError(
                f"interpolation={interpolation!r} is unknown; use one of {interpolation_names()}."
            )
        mean, std = _three(mean, "mean"), _three(std, "std")
        if min(std) <= 0:
            raise ValueError(f"std={std} must be positive.")
        super().__init__(
            image_size=_square(image_size),
            # What the parent's words mean here; the computation below uses the table.
            scale=[1.0 / (255.0 * s) for s in std],
            offset=[-m / s for m, s in zip(mean, std, strict=True)],
            crop_to_aspect_ratio=mode == "crop",
            pad_to_aspect_ratio=mode == "pad",
            interpolation="lanczos3" if interpolation == "lanczos" else interpolation,
            antialias=True,
            data_format="channels_last",
            **kwargs,
        )
        self.mode = mode
        self.interpolation: Interpolation = interpolation
        self.mean, self.std = mean, std
        self.max_pixels = int(max_pixels)
        self._table = _pixel_table(mean, std)
        # Several times faster than looking up, where it gives the same values.
        division = np.divide(np.arange(256, dtype="uint8"), np.float32(255))
        self._is_division = bool((self._table == division[:, None]).all())

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the result in pixels (equal); can be set."""
        return (self.resizing.height, self.resizing.width)

    @image_size.setter
    def image_size(self, value: int | Sequence[int]) -> None:
        self.resizing.height, self.resizing.width = _square(value)

    def to_uint8(self, source: Any) -> np.ndarray:
        """The geometry alone: any picture to `uint8[S, S, 3]`, before scaling."""
        size = self.image_size[0]
        image = load_image(source, self.max_pixels, enough=size)
        if self.mode == "crop":
            return crop_and_resize(image, size, self.interpolation)
        color = (int(255 * self.mean[0]), int(255 * self.mean[1]), int(255 * self.mean[2]))
        return pad_and_resize(image, size, color, self.interpolation)

    def convert(self, source: Any) -> np.ndarray:
        """One picture to `float32[S, S, 3]`."""
        return self.scale_pixels(self.to_uint8(source))

    def __call__(self, inputs: Any) -> np.ndarray:
        # Not through Keras' call, which would wrap an error of one line into a page.
        return self.call(inputs)

    def call(self, inputs: Any) -> np.ndarray:
        if in_tf_function():
            raise ImageError(
                "FastVLMImageConverter runs in Python and cannot be part of a tf.data graph; "
                "feed the model from dl_techniques.data.ConversationDataset instead."
            )
        is_batch = isinstance(inputs, (list, tuple)) or getattr(inputs, "ndim", 0) == 4
        if not is_batch:
            return self.convert(inputs)
        size = self.image_size
        batch = np.empty((len(inputs), *size, 3), "float32")
        for i, source in enumerate(inputs):
            self.scale_pixels(self.to_uint8(source), out=batch[i])
        return batch

    def scale_pixels(self, images: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Scaled and normalized pixels.

        Args:
            images: uint8[..., 3].
            out: float32[..., 3] to write into, or None for a new array.

        Returns:
            float32[..., 3].
        """
        if self._is_division:
            return np.divide(images, np.float32(255), out=out)
        scaled = self._table[images, np.arange(3)]
        if out is None:
            return scaled
        out[...] = scaled
        return out

    def get_config(self) -> dict[str, Any]:
        config = keras.layers.Layer.get_config(self)
        config.update(
            image_size=list(self.image_size),
            mode=self.mode,
            interpolation=self.interpolation,
            mean=list(self.mean),
            std=list(self.std),
            max_pixels=self.max_pixels,
        )
        return config


def _pixel_table(mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """`float32[256, 3]`: the scaled value of each byte in each channel.

    The product is taken in float64 and rounded to float32 before the normalization, as
    `CLIPImageProcessor` does, so that the results agree in the last bit.
    """
    scaled = (np.arange(256, dtype="float64") * (1 / 255)).astype("float32")[:, None]
    return (scaled - np.asarray(mean, "float32")) / np.asarray(std, "float32")


def _three(values: Sequence[float], name: str) -> tuple[float, ...]:
    result = tuple(float(v) for v in values)
    if len(result) != 3:
        raise ValueError(f"{name} needs one value per channel (3), got {result}.")
    return result


def _square(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height != width or height < 1:
        raise ValueError(f"image_size={size} must be a positive square, e.g. (256, 256).")
    return int(height), int(width)
