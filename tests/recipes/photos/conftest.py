"""The archives of photographs: tiny ones always, the real ones where PHOTOS names their folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.recipes.photos.archives import write_archives


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all four archives, tiny."""
    return write_archives(tmp_path)


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """The folder of the real archives."""
    named = os.environ.get("PHOTOS")
    if not named:
        pytest.skip("PHOTOS names no folder of photographs")
    return Path(named)
