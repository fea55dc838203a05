"""Texts: what is refused, and how the place is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dl_techniques.errors import PromptError
from dl_techniques.text import check_numpy_text, check_text

pytestmark = pytest.mark.once


@pytest.mark.parametrize("text", ["", "why?", "é 🙂 \x00", np.str_("why?")])
def test_texts_pass_as_plain_str(text: Any) -> None:
    assert check_text(text, "here") == text and type(check_text(text, "here")) is str


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (None, "^line 3 must be a str, got NoneType None$"),
        (7, "^line 3 must be a str, got int 7$"),
        (b"why?", "^line 3 must be a str, got bytes b'why[?]'; decode it first$"),
        (np.bytes_(b"why?"), "^line 3 must be a str"),
        (["why?"], "^line 3 must be a str, got list"),
        ("why\udcff?", r"^line 3 cannot be .* half of a surrogate pair, '\\udcff', at character 3"),
        ("\ud83d", "at character 0"),
        ("x" * 10**6 + "\ud83d", "^.{,300}$"),
    ],
)
def test_anything_else_is_refused_with_its_place(value: Any, match: str) -> None:
    with pytest.raises(PromptError, match=match):
        check_text(value, "line 3")


def test_bytes_of_numpy_are_read() -> None:
    assert check_numpy_text(np.bytes_("café".encode()), "here") == "café"
    with pytest.raises(PromptError, match="^here is no UTF-8: byte 0xff at 1 of b'a"):
        check_numpy_text(np.bytes_(b"a\xff"), "here")
