"""Read one picture, whatever it comes as, into `uint8[H, W, 3]`.

Rules: the EXIF orientation is applied; of an animation the first frame is taken; transparent
parts show white; grey becomes three equal channels; 16 bit is scaled to 8 (65535 -> 255);
float arrays lie in [0, 1]; colour profiles are not applied. Everything that cannot be read is
an `ImageError` of one line that names the source.
"""

from __future__ import annotations

import os
import threading
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps

from dl_techniques.errors import ImageError

ImageSource = str | os.PathLike | bytes | bytearray | IO[bytes] | Image.Image | np.ndarray

# Pillow's own limit: about 89 million pixels, 256 MiB as RGB.
MAX_PIXELS = 89_478_485
# Guards the moment in which Pillow's global limit is lifted; see `_open`.
_OPEN_LOCK = threading.Lock()


def load_image(source: ImageSource, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a picture.

    Args:
        source: A path, the bytes of a file, an open binary file, a PIL picture, or an array
            [H, W], [H, W, 1] (grey), [H, W, 2] (grey and alpha), [H, W, 3] or [H, W, 4]; bool,
            uint8, uint16, other integers in 0..255, or floats in 0..1.
        max_pixels: Larger pictures are refused before they are decoded. Arrays are not
            limited: their memory is spent already.

    Returns:
        uint8[H, W, 3], RGB, contiguous.

    Raises:
        ImageError: missing, empty, damaged, too large, or not a picture.

    Example:
        >>> import numpy as np
        >>> load_image(np.ones((2, 3))).shape
        (2, 3, 3)
    """
    name = describe_source(source)
    if isinstance(source, Image.Image):
        _check_size(source.width, source.height, max_pixels, name)
        return _decode(source, name)
    if isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(
        source, "read"
    ):
        return _decode(_open(_read(source, name), name, max_pixels), name)
    if hasattr(source, "__array__"):
        return _from_array(source, name)
    raise ImageError(
        f"{name} is not a picture; pass a path, bytes, an open file, a PIL picture or an array."
    )


def describe_source(source: Any) -> str:
    """A short name of a picture source for messages: a path, or what kind of object it is."""
    if isinstance(source, (str, os.PathLike)):
        return f"'{os.fspath(source)}'"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    shape = getattr(source, "shape", None)
    what = type(source).__name__
    return f"<{what}>" if shape is None else f"<{what} of shape {tuple(shape)}>"


def _read(source: Any, name: str) -> bytes:
    """The bytes of a file-like source."""
    try:
        if isinstance(source, (str, os.PathLike)):
            data = Path(source).read_bytes()
        elif hasattr(source, "read"):
            data = source.read()
        else:
            data = bytes(source)
    except FileNotFoundError as error:
        hint = "; addresses are not fetched, download it first" if "://" in name else ""
        raise ImageError(f"Picture {name} does not exist{hint}.") from error
    except IsADirectoryError as error:
        raise ImageError(f"Picture {name} is a folder; name a file in it.") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"Picture {name} cannot be read: {_reason(error)}.") from error
    if not isinstance(data, bytes):
        raise ImageError(f"Picture {name} was opened as text; open it in binary mode ('rb').")
    if not data:
        raise ImageError(f"Picture {name} is empty (0 bytes).")
    return data


def _open(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """Parse the header only, and refuse what is too large before anything is decoded."""
    try:
        with _OPEN_LOCK:
            # Pillow's limit is a global of its module that warns or raises at its own sizes.
            # Ours is checked two lines below, so it is lifted for the header alone.
            pillow_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(BytesIO(data))
            finally:
                Image.MAX_IMAGE_PIXELS = pillow_limit
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            f"Picture {name} is not in a known picture format (it starts with {data[:12]!r})."
        ) from error
    except Exception as error:  # damaged headers raise whatever their parser stumbles over
        raise ImageError(f"Picture {name} has a damaged header: {_reason(error)}.") from error
    _check_size(image.width, image.height, max_pixels, name)
    return image


def _check_size(width: int, height: int, max_pixels: int, name: str) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"Picture {name} has {width} x {height} = {width * height} pixels, more than "
            f"max_pixels={max_pixels}; raise max_pixels if you trust it."
        )
    if width * height == 0:
        raise ImageError(f"Picture {name} has no pixels.")


def _decode(image: Image.Image, name: str) -> np.ndarray:
    """Decode the pixels and bring any mode to RGB."""
    try:
        image.load()
        return _to_rgb(ImageOps.exif_transpose(image), name)
    except ImageError:
        raise
    except Exception as error:  # truncated files raise OSError, SyntaxError, struct.error, ...
        raise ImageError(f"Picture {name} is damaged or cut short: {_reason(error)}.") from error


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    if image.mode.startswith("I"):
        return _grey_16_bit(image, name)
    if image.mode == "F":
        return _from_array(np.asarray(image), name)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


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
    return _from_array(grey, name)


def _from_array(source: Any, name: str) -> np.ndarray:
    """An array of any supported shape and type as RGB."""
    array = np.asarray(source)
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
    array = _to_8_bit(array, name)
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    if array.shape[2] == 3:
        return np.ascontiguousarray(array)
    mode = "LA" if array.shape[2] == 2 else "RGBA"
    height, width, channels = array.shape
    raw = np.ascontiguousarray(array).tobytes()
    return _to_rgb(Image.frombytes(mode, (width, height), raw), name)


def _to_8_bit(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype("uint8") * np.uint8(255)
    if array.dtype == np.uint16:
        return ((array.astype("uint32") + 128) // 257).astype("uint8")
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
    return np.rint(array.astype("float64") * (255 if is_float else 1)).astype("uint8")


def _reason(error: Exception) -> str:
    """One line out of an exception of someone else's."""
    text = " ".join(str(error).split()).rstrip(".")
    return text or type(error).__name__
