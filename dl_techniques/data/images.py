"""Read one picture, whatever it comes as, into `uint8[H, W, 3]`.

Rules: the EXIF orientation is applied; of an animation the first frame is taken; transparent
parts show white; grey becomes three equal channels; 16 bit is scaled to 8 (65535 -> 255);
float arrays lie in [0, 1]; colour profiles are not applied; HEIC needs the extra `heic`.
Everything that cannot be read is an `ImageError` of one line that names the source.
"""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from inspect import iscoroutine
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from dl_techniques.data.data_uri import decode_data_uri, is_data_uri
from dl_techniques.data.heif import is_heif, open_heif
from dl_techniques.data.pixels import rgb_of_array, rgb_of_image
from dl_techniques.errors import ImageError, shorten

PICTURE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif",
)  # fmt: skip
"""What files of pictures in a folder end in, in small letters."""
ImageSource = str | os.PathLike | bytes | bytearray | IO[bytes] | Image.Image | np.ndarray

# The largest cameras of 48 megapixels. Reading so many takes 350 MB: 4 bytes a pixel inside
# Pillow and 3 in the result.
MAX_PIXELS = 8192 * 6144
# Guards the moment in which Pillow's global limit is lifted; see `_open`.
_OPEN_LOCK = threading.Lock()
# Open files and pictures may be shared by the threads that prepare batches.
_SHARED_LOCK = threading.Lock()


def load_image(
    source: ImageSource, max_pixels: int = MAX_PIXELS, enough: int | None = None
) -> np.ndarray:
    """Read a picture.

    Args:
        source: A path, a data URI, the bytes of a file, an open binary file (read from its
            start, each time), a PIL picture, or an array or tensor [H, W], [H, W, 1] (grey),
            [H, W, 2] (grey and alpha), [H, W, 3] or [H, W, 4]; bool, uint8, uint16, other
            integers in 0..255, or floats in 0..1.
        max_pixels: Larger pictures are refused before they are decoded. Arrays are not
            limited: their memory is spent already.
        enough: Pixels that the shorter side needs, where the caller makes the picture smaller
            anyway. A JPEG above `max_pixels` is then decoded at half its width and height, if
            that fits and is enough. None: such a JPEG is refused.

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
        return _decode(source, name, shared=True)
    if isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(
        source, "read"
    ):
        return _decode(_open(_read(source, name), name, max_pixels, enough), name)
    if hasattr(source, "__array__"):
        return rgb_of_array(source, name)
    raise ImageError(
        f"{name} is not a picture; pass a path, bytes, an open file, a PIL picture or an array."
    )


def describe_source(source: Any) -> str:
    """A short name of a picture source for messages: a path, or what kind of object it is."""
    if isinstance(source, (str, os.PathLike)):
        return f"'{shorten(os.fspath(source))}'"
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    shape = getattr(source, "shape", None)
    what = type(source).__name__
    return f"<{what}>" if shape is None else f"<{what} of shape {tuple(shape)}>"


def _read(source: Any, name: str) -> bytes:
    """The bytes of a file-like source."""
    try:
        if is_data_uri(source):
            data = decode_data_uri(source)
        elif isinstance(source, (str, os.PathLike)):
            data = Path(source).read_bytes()
        elif hasattr(source, "read"):
            data = _read_open_file(source)
        else:
            data = bytes(source)
    except FileNotFoundError as error:
        hint = "; addresses are not fetched, download it first" if "://" in name else ""
        raise ImageError(f"Picture {name} does not exist{hint}.") from error
    except IsADirectoryError as error:
        raise ImageError(f"Picture {name} is a folder; name a file in it.") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"Picture {name} cannot be read: {_reason(error)}.") from error
    if iscoroutine(data):
        data.close()
        raise ImageError(f"Picture {name} is read with await; pass the bytes that this gives.")
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ImageError(f"Picture {name} was opened as text; open it in binary mode ('rb').")
    if not data:
        raise ImageError(f"Picture {name} is empty (0 bytes), or a stream that was read before.")
    return bytes(data)


def _read_open_file(file: Any) -> Any:
    """All of a file from its start, as Pillow reads it; of a pipe what is left."""
    with _SHARED_LOCK:  # between going back and reading nobody else may read
        try:
            file.seek(0)
        except (AttributeError, OSError):
            pass
        return file.read()


def _open(data: bytes, name: str, max_pixels: int, enough: int | None) -> Image.Image:
    """Parse the header only, and refuse what is too large before anything is decoded."""
    try:
        with _OPEN_LOCK:
            # Pillow's limit is a global of its module that warns or raises at its own sizes.
            # Ours is checked two lines below, so it is lifted for the header alone.
            pillow_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image: Image.Image = Image.open(BytesIO(data))
            finally:
                Image.MAX_IMAGE_PIXELS = pillow_limit
    except Image.UnidentifiedImageError as error:
        if not is_heif(data):
            raise ImageError(
                f"Picture {name} is not in a known picture format (it starts with {data[:12]!r})."
            ) from error
        image = open_heif(data, name)
    except Exception as error:  # damaged headers raise whatever their parser stumbles over
        raise ImageError(f"Picture {name} has a damaged header: {_reason(error)}.") from error
    if enough is not None and image.width * image.height > max_pixels:
        _halve(image, data, max_pixels, enough)
    _check_size(image.width, image.height, max_pixels, name)
    return image


def _halve(image: Image.Image, data: bytes, max_pixels: int, enough: int) -> None:
    """Has a JPEG decoded at half its sides, where this fits, is enough, and saves memory."""
    width, height = image.width // 2, image.height // 2
    fits = (width + 1) * (height + 1) <= max_pixels and min(width, height) >= enough
    if fits and image.format in ("JPEG", "MPO") and _is_one_scan(data):
        image.draft(None, (width, height))


def _is_one_scan(data: bytes) -> bool:
    """Whether a JPEG holds its channels side by side; else all of it is kept while decoding."""
    at, channels = 2, 0
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xC2:  # progressive
            return False
        if marker in (0xC0, 0xC1):
            channels = data[at + 9]
        if marker == 0xDA:
            return data[at + 4] == channels
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _check_size(width: int, height: int, max_pixels: int, name: str) -> None:
    if width * height > max_pixels:
        raise ImageError(
            f"Picture {name} has {width} x {height} = {width * height} pixels, more than "
            f"max_pixels={max_pixels}; raise max_pixels if you trust it."
        )
    if width * height == 0:
        raise ImageError(f"Picture {name} has no pixels.")


def _decode(image: Image.Image, name: str, shared: bool = False) -> np.ndarray:
    """Decode the pixels and bring any mode to RGB."""
    try:
        with _SHARED_LOCK if shared else nullcontext():
            image.load()
        return rgb_of_image(image, name)
    except ImageError:
        raise
    except Exception as error:  # truncated files raise OSError, SyntaxError, struct.error, ...
        raise ImageError(f"Picture {name} is damaged or cut short: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    """One line out of an exception of someone else's, without the name of the file."""
    strerror = getattr(error, "strerror", None)
    text = shorten(" ".join(str(strerror or error).split()).rstrip("."), 200)
    return text or type(error).__name__
