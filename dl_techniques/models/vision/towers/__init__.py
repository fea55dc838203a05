"""`Towers`: several vision networks that look at one picture."""

from __future__ import annotations

from dl_techniques.models.vision.towers.model import Towers

__all__ = ["Towers"]
