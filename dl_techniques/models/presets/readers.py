"""Where a model's `from_preset` finds readers of other people's weights.

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
    reader = cast(Reader, importlib.import_module(module))
    return reader if reader.recognises(cls, Path(source), variant) else None
