"""The stopwatch of the benchmark, on commands and models whose times are known."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dl_techniques.errors import DLTechniquesError
from dl_techniques.evaluation.speed import (
    WarmTimes,
    cold_starts,
    measure_cold,
    measure_warm,
    middle_of,
    own_peak_megabytes,
    peak_bytes,
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


def times(first_token: float, rate: float | None) -> WarmTimes:
    return WarmTimes(0.1, 0.2, 0.3, 0.4, first_token, rate, 5)


def test_medians() -> None:
    middle = middle_of([times(1.0, 10.0), times(9.0, 30.0), times(2.0, 20.0)])
    assert (middle.first_token, middle.tokens_per_second, middle.tokens) == (2.0, 20.0, 5)
    assert middle_of([times(1.0, None), times(2.0, 20.0)]).tokens_per_second is None


class Stream:
    """Six tokens, one every 20 ms, after 50 ms."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.pieces = self.make()

    def make(self) -> Iterator[str]:
        for i in range(6):
            time.sleep(0.02 if i else 0.05)
            self.token_ids.append(i)
            yield "x"

    def __iter__(self) -> Iterator[str]:
        return self.pieces

    def __next__(self) -> str:
        return next(self.pieces)


class SlowModel:
    """A model whose phases take known times."""

    def __init__(self) -> None:
        self.read: list[int] = []
        self.preprocessor = SimpleNamespace(generate_preprocess=self.preprocess)

    def preprocess(self, inputs: Any) -> dict[str, Any]:
        time.sleep(0.01)
        return {"images": inputs["images"]}

    def encode_images(self, images: Any) -> Any:
        time.sleep(0.03)
        return np.zeros((1, 4, 8))

    def prefill(self, arrays: Any, rows: Any, max_new_tokens: int) -> Any:
        time.sleep(0.02)
        return np.array([[0.0, 1.0, 0.5]]), "state"

    def decode_step(self, tokens: Any, state: Any) -> Any:
        time.sleep(0.005)
        self.read += tokens.tolist()
        return np.zeros((1, 3)), "state"

    def stream(self, inputs: Any, max_new_tokens: int) -> Stream:
        return Stream()


def test_phases_of_a_warm_answer() -> None:
    model, calls = SlowModel(), []
    result = measure_warm(model, {"images": []}, 6, 2, calls.append)
    assert calls == [1, 1]
    assert result.preprocess >= 0.01
    assert result.encode >= 0.03
    assert result.prefill >= 0.02
    assert result.first_decode >= 0.005
    assert result.first_token >= 0.05
    assert result.tokens == 6
    assert result.tokens_per_second is not None and 0 < result.tokens_per_second <= 50
    assert set(model.read) == {1}  # the likeliest token was read back


def test_no_repeats_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        measure_warm(SlowModel(), {"images": []}, 1, 0)
