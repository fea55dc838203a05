"""Lets timm and transformers import a torchvision that was built for another torch.

A CPU build of torch beside a CUDA build of torchvision lacks torchvision's operators, and its
import stops at the first one. Text models never call them: declaring their names is enough.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import torch

_kept: list[torch.library.Library] = []  # a library that is dropped takes its operators along


def declare() -> None:
    """Makes `import torchvision` work; does nothing where it does already, or is absent."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or _imports():
        return
    text = (Path(found.origin).parent / "_meta_registrations.py").read_text(encoding="utf-8")
    names = re.findall(r'register_(?:meta|fake)\("(?:torchvision::)?(\w+)"', text)
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in dict.fromkeys(["nms", *names]):
        library.define(f"{name}(Tensor a) -> Tensor")
    _kept.append(library)
    import torchvision  # noqa: F401


def _imports() -> bool:
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # operator torchvision::nms does not exist
        return False
    return True
