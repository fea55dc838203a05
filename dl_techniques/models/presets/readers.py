"""Where models find readers and writers of other people's weights: the one door that leads up.

The readers stand a floor above, in `dl_techniques.checkpoints`, and know the models; the models
know only their names. A reader is imported when a source is no preset of ours.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol, cast

VISION = "dl_techniques.checkpoints.vision"
VLM = "dl_techniques.checkpoints.fast_vlm"
"""The readers. Vision models ask the first alone: it works without keras-hub."""


class Reader(Protocol):
    """What a module of readers offers."""

    def recognises(self, cls: type, source: Path, variant: str | None) -> bool:
        """Whether this reader makes objects of `cls` from `source`."""

    def load(self, cls: type, source: Path, variant: str | None, overrides: dict[str, Any]) -> Any:
        """Makes one."""

    def write(self, what: Any, folder: Path, **options: Any) -> None:
        """Writes an object in this layout; an older folder is replaced when all is written."""


def reader_of(module: str) -> Reader:
    """The reader and writer of a layout.

    Args:
        module: `VISION` or `VLM`.
    """
    return cast(Reader, importlib.import_module(module))


def find_reader(
    module: str, cls: type, source: str | Path, variant: str | None = None
) -> Reader | None:
    """The reader for a file or folder that is no preset of ours, or None.

    Args:
        module: name of the module that is asked, `VISION` or `VLM`.
        cls: the class whose `from_preset` was called.
        source: file or folder.
        variant: what the caller says the network is.
    """
    reader = reader_of(module)
    return reader if reader.recognises(cls, Path(source), variant) else None
