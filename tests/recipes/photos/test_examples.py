"""The examples in the docstrings of what makes and measures photographs."""

from __future__ import annotations

import doctest
import importlib

import pytest

pytestmark = pytest.mark.once
MODULES = (
    "photos.readers", "photos.names", "photos.articles", "photos.wordings", "photos.templates",
    "photos.unknown", "photos.nanodet", "photo_benchmark", "elsewhere", "benchmark",
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"recipes.demo.{name}"))
    assert found.attempted > 0 and found.failed == 0
