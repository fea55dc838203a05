"""HEIC, in which phones keep their photos, through the optional `pillow-heif`."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from dl_techniques.errors import ImageError, install_hint

# Brands of the container that hold one picture coded as HEVC.
_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def is_heif(data: bytes) -> bool:
    """Whether the bytes are those of a HEIC file.

    Example:
        >>> is_heif(b"----ftypheic"), is_heif(b"no picture")
        (True, False)
    """
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS


def open_heif(data: bytes, name: str) -> Image.Image:
    """Opens a HEIC file; its pixels are decoded when they are asked for.

    Args:
        data: bytes of the file.
        name: what errors call the picture.

    Raises:
        ImageError: `pillow-heif` is not installed, or cannot read the file.
    """
    try:
        from pillow_heif import HeifImageFile
    except ModuleNotFoundError as error:
        raise ImageError(
            f"Picture {name} is HEIC, which needs pillow-heif: {install_hint('heic')}, or save it "
            "as JPEG."
        ) from error
    try:
        image: Image.Image = HeifImageFile(BytesIO(data))
    except Exception as error:  # libheif tells what is wrong in many ways
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageError(f"Picture {name} has a damaged header: {reason}.") from error
    return image
