"""Lets transformers import a torchvision that was built for another torch."""

from __future__ import annotations

from tools.torchvision_schemas import declare

__all__ = ["declare"]
