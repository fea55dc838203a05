"""The stopwatch of the benchmark, on commands and calls whose times are known."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import keras
import pytest

from dl_techniques.errors import DLTechniquesError
from dl_techniques.evaluation.speed import (
    as_numpy,
    cold_starts,
    measure_cold,
    median,
    own_peak_megabytes,
    peak_bytes,
    thread_settings,
    timed,
)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_cold_run_is_timed_to_its_first_byte() -> None:
    code = (
        "import sys, time; time.sleep(0.3); print('a', flush=True); "
        "x = bytearray(150_000_000); time.sleep(0.3); print('b' * 100_000)"
    )
    times = measure_cold(python(code), os.environ)
    assert 0.3 <= times.first_text_seconds < times.seconds - 0.25
    assert times.peak_megabytes > 150


def test_a_failing_command_is_told_with_its_words() -> None:
    with pytest.raises(DLTechniquesError, match="failed with 3: no such thing"):
        measure_cold(python("import sys; print('no such thing', file=sys.stderr); sys.exit(3)"), {})


def test_the_next_run_finds_what_the_first_left(tmp_path: Path) -> None:
    code = (
        "import os, pathlib; p = pathlib.Path(os.environ['XDG_CACHE_HOME'], 'programs'); "
        f"open({str(tmp_path / 'log')!r}, 'a').write(f'{{p.exists()}} '); p.touch(); print('x')"
    )
    assert list(cold_starts(python(code))) == ["first run", "next run"]
    assert (tmp_path / "log").read_text() == "False True "


def test_units() -> None:
    assert peak_bytes(2048, "linux") == 2 * 1024 * 1024
    assert peak_bytes(2048, "darwin") == 2048
    assert own_peak_megabytes() > 10


def test_threads_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = thread_settings()
    assert settings["OMP_NUM_THREADS"] == "1"
    backend = keras.config.backend()
    assert (backend in settings) == (backend != "jax")


def test_a_call_is_timed_until_its_result_is_there() -> None:
    def slow() -> dict[str, Any]:
        time.sleep(0.02)
        return {"a": keras.ops.ones(3)}

    result, seconds = timed(slow)
    assert seconds >= 0.02 and as_numpy(result["a"]).tolist() == [1, 1, 1]
    assert median([3.0, 1.0, 2.0]) == 2.0
