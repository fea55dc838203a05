"""Networks of other packages that several files of tests compare with, made once a run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def publish_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """`publish(name, sides)` of `tests.parity.published`, remembered."""
    from tests.parity.published import SIDES, publish

    @functools.cache
    def make(name: str, sides: tuple[int, int] = SIDES) -> Any:
        return publish(name, tmp_path_factory.mktemp(name), sides)

    return make
