"""From a model to files that run elsewhere, each compared with Keras before it is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dl_techniques.backend import choose_backend

if TYPE_CHECKING:
    from dl_techniques.export.exporter import export_model as export_model
    from dl_techniques.export.report import ExportReport as ExportReport

__all__ = ["ExportReport", "export_model"]
_MODULES = {"export_model": "exporter", "ExportReport": "report"}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used: the command line reads the tables only."""
    import importlib

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    choose_backend()
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
