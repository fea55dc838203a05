"""Where a model's `from_preset` finds readers of other people's weights.

The readers stand a floor above, in `dl_techniques.checkpoints`, and know the models; the models
know only their names. A reader is imported when a source is no preset of ours.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol, cast

READERS = ("dl_techniques.checkpoints.vision", "dl_techniques.checkpoints.fast_vlm")
"""Modules that are asked, in this order."""


class Reader(Protocol):
    """What a module of `READERS` offers."""

    def recognises(self, cls: type, source: Path, variant: str | None) -> bool:
        """Whether this reader makes objects of `cls` from `source`."""

    def load(self, cls: type, source: Path, variant: str | None, overrides: dict[str, Any]) -> Any:
        """Makes one."""


def find_reader(cls: type, source: str | Path, variant: str | None = None) -> Reader | None:
    """The reader for a file or folder that is no preset of ours, or None.

    Args:
        cls: the class whose `from_preset` was called.
        source: file or folder.
        variant: what the caller says the network is.
    """
    path = Path(source)
    for name in READERS:
        reader = cast(Reader, importlib.import_module(name))
        if reader.recognises(cls, path, variant):
            return reader
    return None
