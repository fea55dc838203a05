"""Runs an exported folder's own host in a process without Keras, and writes down what it computes.

    python probe.py FOLDER CASES.json RESULT.npz

`CASES.json` is a list of `{"pictures": [...], "question": ..., "max_new_tokens": ...}`. For case i
the result holds `rows_i` float32[n, D] (the whole prompt), `logits_i` float32[V] (after it) and
`tokens_i` int32[m] (the greedy answer, stop tokens not minded). Imports nothing of the package:
the host is the file in the folder.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

BLOCKED = ("keras", "keras_hub", "tensorflow", "jax", "torch", "dl_techniques")


def load_host(folder: Path) -> Any:
    """The module `host.py` of a folder, with Keras and its backends out of reach."""
    for name in BLOCKED:
        sys.modules[name] = None  # type: ignore[assignment]
    spec = importlib.util.spec_from_file_location("host", folder / "host.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "host.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(folder: Path, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """All cases through the host: arrays by name."""
    host = load_host(folder).Host(folder)
    host.manifest["stop_ids"] = []
    results: dict[str, Any] = {}
    for i, case in enumerate(cases):
        rows = host.prompt_rows(case["pictures"], case["question"])
        caches = host.read_rows(rows[:-1], host.empty_caches())
        results[f"rows_{i}"] = rows
        results[f"logits_{i}"] = host.next_logits(rows[-1:], len(rows) - 1, caches)[0]
        results[f"tokens_{i}"] = list(host.tokens(rows, case["max_new_tokens"]))
    return results


if __name__ == "__main__":
    import numpy as np

    _folder, _cases, _result = (Path(argument) for argument in sys.argv[1:])
    np.savez(_result, **run(_folder, json.loads(_cases.read_text(encoding="utf-8"))))
