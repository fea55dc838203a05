"""The table of ways to multiply int8 numbers."""

from __future__ import annotations

import pytest

from dl_techniques.kernels.machine import runs_on_torch
from tools import integer_sums


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    integer_sums.main(["--rows", "1", "2", "--repeats", "1"])
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    names = [line[0].removeprefix("| ") for line in lines[2:]]
    assert names[:2] == ["float32", "Keras"] and len(names) == (7 if runs_on_torch() else 4)
    assert all(float(cell.rstrip(" |")) > 0 for line in lines[2:] for cell in line[1:])


def test_every_way_gives_the_same_sums() -> None:
    import numpy as np
    from keras import ops

    rng = np.random.default_rng(0)
    kernel = rng.integers(-127, 128, (6, 5)).astype("int8")
    rows = rng.integers(-127, 128, (2, 6)).astype("int8")
    factors = [kernel, np.ascontiguousarray(kernel.T), kernel.astype("float32")]
    held = [ops.convert_to_tensor(each) for each in (rows, *factors)]
    for way in integer_sums.ways().values():
        got = ops.convert_to_numpy(way(*held))
        np.testing.assert_array_equal(got, rows.astype("int64") @ kernel.astype("int64"))
