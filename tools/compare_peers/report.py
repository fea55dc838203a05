"""The comparison as a Markdown table for people and as JSON for programs."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dl_techniques.evaluation.report import processor_name
from dl_techniques.evaluation.speed import median
from tools.compare_peers.job import Job
from tools.compare_peers.measure import Result
from tools.compare_peers.timing import TURN_SECONDS

PACKAGES = (
    "keras", "tensorflow", "jax", "torch", "timm", "transformers", "onnxruntime", "openvino",
    "ai-edge-litert",
)  # fmt: skip
UNITS = {"forward": "ms", "first_token": "ms", "token": "ms", "second_question": "ms"}


def facts(job: Job, repeats: int, turn_seconds: float = TURN_SECONDS) -> dict[str, Any]:
    """Date, machine, packages and what was measured."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": cores,
        "threads": job.threads or cores,
        **({} if job.device == "cpu" else {"card": card_name()}),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "repeats": repeats,
        "turn_seconds": turn_seconds,
        "job": asdict(job),
    }


def card_name() -> str:
    """The graphics card, as torch sees it; asked in a process of its own, as torch is large.

    Raises:
        SystemExit: there is none.
    """
    code = "import torch; print(torch.cuda.get_device_name())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise SystemExit(f"error: torch finds no CUDA device ({reason}); measure with --device cpu")
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def to_json(results: Sequence[Result], about: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, every single run included."""
    return {
        **about,
        "baseline": results[0].peer.name,
        "against": _against(results, about),
        "peers": [_plain(r) for r in results],
    }


def _plain(result: Result) -> dict[str, Any]:
    return {
        "name": result.peer.name,
        "what": result.peer.what,
        "precision": result.peer.precision,
        "difference": result.difference,
        "median": {name: median(values) for name, values in result.seconds.items()},
        "fastest": {name: min(values) for name, values in result.seconds.items()},
        "ratio": result.ratio,
        "seconds": result.seconds,
        "megabytes": result.megabytes,
        "reason": result.reason,
    }


def to_markdown(results: Sequence[Result], about: dict[str, Any]) -> str:
    """The table: milliseconds (median, fastest) and the ratio to the baseline, then the facts."""
    names = list(dict.fromkeys(name for result in results for name in result.seconds))
    head = ["peer", "precision", "difference"]
    for name in names:
        title = name.replace("_", " ")
        head += [f"{title}, ms", "fastest", f"x {_against(results, about)}"]
    head.append("peak MB")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_cells(result, names)) + " |" for result in results]
    return "\n".join([*lines, "", _described(about)])


def _against(results: Sequence[Result], about: dict[str, Any]) -> str:
    """The peer of whose time the others' are ratios."""
    return str(about.get("against", results[0].peer.name))


def _cells(result: Result, names: Sequence[str]) -> list[str]:
    cells = [f"{result.peer.what} (`{result.peer.name}`)", result.peer.precision]
    cells.append("-" if result.difference is None else f"{result.difference:.1e}")
    if result.reason is not None:
        return [*cells, result.reason, *["-"] * (3 * len(names))]
    for name in names:
        values = result.seconds.get(name)
        ratio = result.ratio.get(name)
        if values is None:
            cells += ["-"] * 3
            continue
        cells += [f"{1000 * median(values):.1f}", f"{1000 * min(values):.1f}"]
        cells.append("-" if ratio is None else f"{ratio:.2f}")
    return [*cells, "-" if not result.megabytes else f"{result.megabytes:.0f}"]


def shares(results: Sequence[Result], operations: int, peak: float) -> str:
    """What share of the machine's float32 matrix products every float32 peer reaches, in words.

    Args:
        results: of a vision network.
        operations: of one forward pass of the folded network, a multiply-add being two.
        peak: operations a second of a large product.
    """
    found = [
        f"`{r.peer.name}` {100 * operations / median(r.seconds['forward']) / peak:.0f} %"
        for r in results
        if r.peer.precision == "float32" and r.seconds.get("forward")
    ]
    return (
        f"{operations / 1e9:.1f} GFLOP a forward pass; a matrix product of float32 reaches "
        f"{peak / 1e9:.0f} GFLOP/s here, the peers this share of it: {', '.join(found)}"
    )


def _described(about: dict[str, Any]) -> str:
    job = about["job"]
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    device = about.get("card", about["processor"])
    return (
        f"{job['network']}, {job['image_size']} px, batch {job['batch_size']}; "
        f"{device}, {about['cores']} cores, {about['threads']} threads, "
        f"{about['system']}; median of {about['repeats']} rounds, in turns of "
        f"{about['turn_seconds']:g} s, {about['date']}; {packages}"
    )
