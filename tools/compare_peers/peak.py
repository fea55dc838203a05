"""What the machine can do: a large matrix product in float32, beside which a network is judged.

Run as `python -m tools.compare_peers.peak`: it prints operations a second; a multiply-add is two.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np

SIZE = 2048
REPEATS = 9


def matrix_peak(size: int = SIZE, repeats: int = REPEATS) -> float:
    """Operations a second of the fastest of some products of two float32[size, size]."""
    left, right = np.random.default_rng(0).random((2, size, size), "float32")
    product = left @ right
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        np.matmul(left, right, out=product)
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def measured_peak(threads: int) -> float:
    """`matrix_peak` in a process of its own.

    Args:
        threads: 0 for one a core.
    """
    limits = {"OPENBLAS_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-m", "tools.compare_peers.peak"],
        env={**os.environ, **(limits if threads else {})},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout)


if __name__ == "__main__":
    print(matrix_peak())
