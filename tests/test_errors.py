"""Messages stay readable, whatever they were made from."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from dl_techniques import errors
from dl_techniques.errors import DLTechniquesError, MissingExtraError, PromptError, shorten

pytestmark = pytest.mark.once


@pytest.mark.parametrize("kind", DLTechniquesError.__subclasses__())
def test_every_message_is_short_and_survives_pickling(kind: Any) -> None:
    for text in ("y" * 3_000_000, "y y " * 1_000_000):
        error = kind(f"No preset '{text}'; use demo.")
        assert len(str(error)) <= errors.MAX_MESSAGE + 5
        assert str(error).startswith("No preset 'y") and str(error).endswith("; use demo.")
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert len(str(kind("No preset '" + "y" * 3_000_000))) < 130


def test_what_is_short_stays_as_it_is() -> None:
    text = f"'/{'folder/' * 20}a.png' is no file; write 'fünf'."
    assert str(PromptError(text)) == text
    assert PromptError(3).args == (3,)
    assert MissingExtraError("No module.", name="torch").name == "torch"


def test_shorten_keeps_both_ends_and_one_line() -> None:
    assert shorten("a.png") == "a.png"
    name = shorten("start" + "x" * 300 + ".png")
    assert len(name) == 100 and name.startswith("start") and name.endswith("x.png")
    assert shorten("a\n\0\udcffb") == "a\\n\\x00\\udcffb"
