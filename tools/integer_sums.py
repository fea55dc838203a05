"""Times the product of int8 rows and an int8 kernel: `python -m tools.integer_sums`.

The kernel is that of the first dense layer of Qwen2-0.5B's feed-forward part, 896 x 4864; `float32`
is the same product of float32 numbers. The backend is the one that KERAS_BACKEND names.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from dl_techniques.kernels.int8_sums import torch_sums
from dl_techniques.kernels.machine import runs_on_torch
from dl_techniques.kernels.reference import int8_matmul

ROWS, DEPTH, UNITS = (1, 2, 8, 64, 288), 896, 4864


def ways() -> dict[str, Callable[[Any, Any, Any, Any], Any]]:
    """What is compared, each a function of rows, kernel, transposed kernel and kernel as floats."""
    found: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
        "float32": lambda x, k, t, f: ops.matmul(ops.cast(x, "float32"), f),
        "Keras": lambda x, k, t, f: ops.matmul(x, k),
        "as floats": lambda x, k, t, f: int8_matmul(x, k),
        "as floats, transposed": lambda x, k, t, f: int8_matmul(x, t, transposed=True),
    }
    if runs_on_torch():
        import torch

        found["torch._int_mm"] = lambda x, k, t, f: torch._int_mm(x, k)
        found["torch_sums"] = lambda x, k, t, f: torch_sums(x, k)
        found["torch_sums, table"] = lambda x, k, t, f: torch_sums(x, t, transposed=True)
    return found


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as the phases of an answer run it."""
    from dl_techniques.runtime.compile import compile_function

    return compile_function(function, [])


def fastest(function: Callable[[], Any], repeats: int) -> float:
    """Milliseconds of the fastest of some calls."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        ops.convert_to_numpy(function())
        times.append(time.perf_counter() - start)
    return 1e3 * min(times[1:])


def main(arguments: list[str] | None = None) -> None:
    """Prints a table: a row for each way, a column for each number of rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    kernel = rng.integers(-127, 128, (DEPTH, UNITS)).astype("int8")
    factors = [kernel, np.ascontiguousarray(kernel.T), kernel.astype("float32")]
    held = [ops.convert_to_tensor(factor) for factor in factors]
    print(f"| {keras.config.backend()}, ms | " + " | ".join(map(str, options.rows)) + " |")
    print("|---|" + "---|" * len(options.rows))
    for name, way in ways().items():
        function, cells = compiled(way), []
        for count in options.rows:
            rows = ops.convert_to_tensor(rng.integers(-127, 128, (count, DEPTH)).astype("int8"))
            milliseconds = fastest(lambda f=function, x=rows: f(x, *held), options.repeats)
            cells.append(f"{milliseconds:.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
