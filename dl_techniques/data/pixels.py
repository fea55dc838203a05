"""Decoded pictures and arrays of every kind to `uint8[H, W, 3]`, a strip of rows at a time.

Only the picture and the result are ever held whole: what lies between them (alpha, palettes,
16 bit, floats) takes the room of one strip.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from dl_techniques.errors import ImageError

# Pixels of a strip: 4 MB as RGBA.
_STRIP = 1 << 20
_ORIENTATION = 0x0112


def rgb_of_image(image: Image.Image, name: str) -> np.ndarray:
    """A decoded picture of any mode as `uint8[H, W, 3]`, turned as its EXIF data says.

    Raises:
        ImageError: grey values outside of 16 bit, or floats outside of 0..1.
    """
    width, height = image.size
    turn = image.getexif().get(_ORIENTATION, 1)
    shape = (width, height) if turn in (5, 6, 7, 8) else (height, width)
    result = np.empty((*shape, 3), "uint8")
    stored = _stored(result, turn)
    for rows in _strips(height, width):
        box = (0, rows.start, width, rows.stop)
        stored[rows] = _image_strip(image.crop(box), name)
    return result


def rgb_of_array(source: Any, name: str) -> np.ndarray:
    """An array or tensor of any supported shape and type as `uint8[H, W, 3]`, contiguous.

    Raises:
        ImageError: a shape, a type or values that are no picture.
    """
    array = _numpy(source, name)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "; the channels come last here, transpose it" if first else ""
        raise ImageError(
            f"Picture {name} has shape {array.shape}; expected [H, W], [H, W, 1], [H, W, 2], "
            f"[H, W, 3] or [H, W, 4]{hint}."
        )
    if array.size == 0:
        raise ImageError(f"Picture {name} has no pixels.")
    _check_values(array, name)
    height, width, channels = array.shape
    if array.dtype == np.uint8 and channels == 3:
        return np.ascontiguousarray(array)
    result = np.empty((height, width, 3), "uint8")
    for rows in _strips(height, width):
        result[rows] = _array_strip(array[rows], name)
    return result


def _strips(height: int, width: int) -> Iterator[slice]:
    step = max(1, _STRIP // width)
    for start in range(0, height, step):
        yield slice(start, min(height, start + step))


def _stored(upright: np.ndarray, turn: Any) -> np.ndarray:
    """The view of an upright picture in which its pixels stand as they are in the file."""
    if turn in (2, 3, 7, 6):
        upright = upright[:, ::-1]
    if turn in (3, 4, 7, 8):
        upright = upright[::-1]
    return upright.transpose(1, 0, 2) if turn in (5, 6, 7, 8) else upright


def _image_strip(image: Image.Image, name: str) -> np.ndarray:
    """Some rows of a picture, uint8[h, w, 3], or [h, w, 1] where it is grey."""
    if image.mode.startswith("I"):
        return _grey_16_bit(image, name)
    if image.mode == "F":
        grey = np.asarray(image)[:, :, None]
        _check_values(grey, name)
        return _to_8_bit(grey)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _grey_16_bit(image: Image.Image, name: str) -> np.ndarray:
    """Grey of 16 bit; Pillow's own conversion would clip it at 255 instead of scaling."""
    grey = np.asarray(image)
    if grey.min() < 0 or grey.max() > 65535:
        raise ImageError(
            f"Picture {name} has grey values {grey.min()}..{grey.max()}; only 16 bit grey "
            "(0..65535) can be read, rescale it first."
        )
    grey = grey.astype("uint16")
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[grey == transparent] = 65535
    return _to_8_bit(grey)[:, :, None]


def _numpy(source: Any, name: str) -> np.ndarray:
    """The numbers of an array or of any backend's tensor, in a type that numpy computes with."""
    try:
        if hasattr(source, "detach"):  # PyTorch's: with a gradient, sparse, on a device
            source = source.detach()
            if not hasattr(source, "layout") or str(source.layout) != "torch.strided":
                source = source.to_dense()
            source = source.cpu()
            if source.dtype.is_floating_point and source.element_size() < 4:
                source = source.float()  # numpy has no bfloat16
        array = np.asarray(source)
    except Exception as error:  # whatever a foreign type raises
        reason = " ".join(str(error).split()).rstrip(".")
        raise ImageError(f"Picture {name} cannot be read as an array: {reason}.") from error
    # Numpy counts the small floats that JAX and TensorFlow add to it as no numbers.
    is_foreign = "float" in array.dtype.name and not np.issubdtype(array.dtype, np.floating)
    return array.astype("float32") if is_foreign else array


def _array_strip(array: np.ndarray, name: str) -> np.ndarray:
    """Some rows of an array, uint8[h, w, 3], or [h, w, 1] where it is grey."""
    array = _to_8_bit(array)
    if array.shape[2] in (1, 3):
        return array
    mode = "LA" if array.shape[2] == 2 else "RGBA"
    height, width = array.shape[:2]
    return _image_strip(Image.frombytes(mode, (width, height), array.tobytes()), name)


def _check_values(array: np.ndarray, name: str) -> None:
    """Refuses numbers that are no brightness."""
    if array.dtype in (np.uint8, np.bool_, np.uint16):
        return
    is_float = np.issubdtype(array.dtype, np.floating)
    if not is_float and not np.issubdtype(array.dtype, np.integer):
        raise ImageError(f"Picture {name} has type {array.dtype}; use uint8, uint16 or float.")
    low, high = array.min(), array.max()
    limit = 1 if is_float else 255
    if not (low >= 0 and high <= limit):  # also false for NaN
        raise ImageError(
            f"Picture {name} of type {array.dtype} has values {low}..{high}; expected 0..{limit}"
            + ("; divide by 255 or convert to uint8." if is_float else ".")
        )


def _to_8_bit(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype("uint8") * np.uint8(255)
    if array.dtype == np.uint16:
        return ((array.astype("uint32") + 128) // 257).astype("uint8")
    scale = 255 if np.issubdtype(array.dtype, np.floating) else 1
    return np.rint(array.astype("float64") * scale).astype("uint8")
