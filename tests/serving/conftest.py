"""One tiny model and one engine for all tests of the service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLM
from dl_techniques.serving.engine import Engine, EngineOptions
from tests.models.vlm.fast_vlm.small_model import make_model


@pytest.fixture(scope="session")
def model() -> FastVLMCausalLM:
    return make_model()


@pytest.fixture(scope="session")
def engine(model: FastVLMCausalLM) -> Iterator[Engine]:
    engine = Engine(model, EngineOptions(rows=4, waiting=6, piece=32))
    engine.start()
    assert engine.wait_until_ready(300)
    yield engine
    engine.close(0)
