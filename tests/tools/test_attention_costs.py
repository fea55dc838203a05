"""The table of attention's costs."""

from __future__ import annotations

import pytest

from tools import attention_costs

pytestmark = pytest.mark.once


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    attention_costs.main(["--sizes", "64", "128", "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("`")[1] for line in lines[2:6]] == ["full", "window", "strided", "linear"]
    times = [float(cell) for cell in lines[2].split("|")[2:4]]
    assert all(time > 0 for time in times)


def test_exponent() -> None:
    assert attention_costs.exponent(1.0, 16.0, 4.0) == pytest.approx(2.0)
