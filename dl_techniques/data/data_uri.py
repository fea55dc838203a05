"""Pictures that are written into a text: `data:image/png;base64,...`.

Reference: RFC 2397, https://www.rfc-editor.org/rfc/rfc2397
"""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import unquote_to_bytes


def is_data_uri(source: Any) -> bool:
    """Whether a source is a data URI; a file of such a name is reached as `./data:...`."""
    return isinstance(source, str) and source[:5].lower() == "data:"


def decode_data_uri(uri: str) -> bytes:
    """The bytes that a data URI holds, whatever kind it says they are.

    Raises:
        ValueError: no comma, or letters that base64 does not have.

    Example:
        >>> decode_data_uri("data:text/plain;base64,SGk="), decode_data_uri("data:,a%20b")
        (b'Hi', b'a b')
    """
    head, comma, body = uri.partition(",")
    if not comma:
        raise ValueError("a data URI has a comma before its contents")
    data = unquote_to_bytes(body)
    if not head.lower().replace(" ", "").endswith(";base64"):
        return data
    # Line breaks, the letters for addresses and missing padding are common.
    data = b"".join(data.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"its contents are not base64 ({error})") from error
