"""Pictures as a request carries them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image


def data_uri(picture: np.ndarray, kind: str = "png") -> str:
    """A picture as a data URI."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def part(url: str) -> dict[str, Any]:
    """The part of a message that shows a picture."""
    return {"type": "image_url", "image_url": {"url": url, "detail": "auto"}}


def text(words: str) -> dict[str, Any]:
    """The part of a message that says something."""
    return {"type": "text", "text": words}
