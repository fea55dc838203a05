"""What the machine can do: large matrix products, beside which a network is judged.

Run as `python -m tools.compare_peers.peak`: it prints operations a second of float32, bfloat16 and
int8; a multiply-add is two. A library that does not know a processor finds half of its peak, and
one layout may be slower than the other: so the best counts of several libraries, sizes and layouts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from dl_techniques.compat import torch_own

SIZES = (1024, 2048, 3072)
REPEATS = 5
# Hints by which a system may hold an older OpenBLAS to slower kernels.
HINTS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def products(size: int) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Precision, library and layout, and a product of two square matrices: all ways there are."""
    left, right = np.random.default_rng(0).random((2, size, size), "float32")
    out = np.empty_like(left)
    yield "float32", "numpy", lambda: np.matmul(left, right, out=out)
    yield "float32", "numpy, transposed", lambda: np.matmul(left, right.T, out=out)
    if not find_spec("torch"):
        return
    import torch

    for kind in (torch.float32, torch.bfloat16):
        a, b = (torch.from_numpy(x).to(kind) for x in (left, right))
        word = str(kind).removeprefix("torch.")
        yield word, "torch", lambda a=a, b=b: a @ b
        yield word, "torch, transposed", lambda a=a, b=b: a @ b.T
    whole = torch.from_numpy((127 * left).astype("int8"))
    flipped = torch.from_numpy((127 * right).astype("int8"))
    yield "int8", "torch", lambda: torch_own.multiply_int8(whole, flipped)
    yield "int8", "torch, transposed", lambda: torch_own.multiply_int8(whole, flipped.T)
    if torch_own.multiplies_vnni():
        rows, packed = whole.to(torch.uint8), torch_own.pack_for_bytes(flipped)
        scales, zeros = torch.ones(size), torch.zeros(size, dtype=torch.int32)
        grid = (1.0, 0)
        yield (
            "int8",
            "torch, uint8 rows",
            lambda: torch_own.multiply_bytes(
                rows, grid, packed, scales, zeros, None, grid, torch.float32, "none"
            ),
        )


def matrix_peaks(sizes: tuple[int, ...] = SIZES, repeats: int = REPEATS) -> dict[str, Any]:
    """Precision -> operations a second of the fastest product, and which that was."""
    best: dict[str, Any] = {}
    for size in sizes:
        for precision, way, product in products(size):
            product()
            seconds = []
            for _ in range(repeats):
                start = time.perf_counter()
                product()
                seconds.append(time.perf_counter() - start)
            rate = 2 * size**3 / min(seconds)
            if rate > best.get(precision, {"rate": 0.0})["rate"]:
                best[precision] = {"rate": rate, "way": f"{way}, {size} x {size}"}
    return best


def measured_peaks(threads: int, sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """`matrix_peaks` in a process of its own.

    Args:
        threads: 0 for one a core.
        sizes: sides of the matrices.
    """
    names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
    limits = {name: str(threads) for name in names} if threads else {}
    kept = {name: value for name, value in os.environ.items() if name not in HINTS}
    done = subprocess.run(
        [sys.executable, "-m", "tools.compare_peers.peak", "--json", *map(str, sizes)],
        env={**kept, **limits},
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(arguments: list[str]) -> None:
    """Prints the peaks, as JSON after `--json`."""
    as_json = "--json" in arguments
    sizes = tuple(int(word) for word in arguments if word.isdigit()) or SIZES
    if as_json:
        print(json.dumps(matrix_peaks(sizes)))
        return
    for precision, found in measured_peaks(0, sizes).items():
        print(f"{precision}: {found['rate'] / 1e9:.0f} GFLOP/s ({found['way']})")


if __name__ == "__main__":
    main(sys.argv[1:])
