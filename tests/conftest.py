"""What every test shares: a fixed seed, the backend in the header, and the slow tests' switch."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Most of a run on JAX is compiling tiny programs, many of them again and again.
PROGRAMS = Path(__file__).resolve().parents[1] / ".pytest_cache" / "jax-programs"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(PROGRAMS))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
SEED = 1234


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --run-full; RUN_FULL=1 in the environment does the same."""
    parser.addoption(
        "--run-full",
        action="store_true",
        default=os.environ.get("RUN_FULL", "") not in ("", "0"),
        help="also run the tests marked `full`",
    )
    parser.addoption(
        "--skip-once",
        action="store_true",
        help="leave out the tests marked `once`, which run on another backend",
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Names the backend: a suite that ran on the wrong one proves nothing."""
    import keras

    full = config.getoption("--run-full")
    return f"keras {keras.__version__} on {keras.backend.backend()}, full: {full}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips what runs on another backend, and the slow tests unless they were asked for."""
    if config.getoption("--skip-once"):
        elsewhere = [item for item in items if "once" in item.keywords]
        config.hook.pytest_deselected(items=elsewhere)
        items[:] = [item for item in items if "once" not in item.keywords]
    if config.getoption("--run-full"):
        return
    import keras

    slow = {"full", "slow_on_jax"} if keras.backend.backend() == "jax" else {"full"}
    skip = pytest.mark.skip(reason="slow: run with --run-full")
    for item in items:
        if slow & set(item.keywords):
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """What was imported is never garbage."""
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> Iterator[None]:
    """Keras collects garbage for each layer that it quantizes: only a file's own is looked through.

    What outlives a file's tests (compiled programs, shared models) is left to stay.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from the same seed."""
    import keras

    keras.utils.set_random_seed(SEED)


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh generator with a fixed seed."""
    return np.random.default_rng(SEED)
