"""A vision-language model as one `.litertlm` file, and the LiteRT-LM engine that runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dl_techniques.export.litertlm.bundle import export_bundle as export_bundle
    from dl_techniques.hosts.litertlm import EngineChat as EngineChat

__all__ = ["EngineChat", "export_bundle"]
_MODULES = {
    "EngineChat": "dl_techniques.hosts.litertlm",
    "export_bundle": "dl_techniques.export.litertlm.bundle",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: the engine's side needs no Keras.

    Raises:
        AttributeError: the package has no such name.
    """
    import importlib

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
