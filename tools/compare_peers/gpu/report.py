"""The tables and the figures, written again whenever there is more of them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dl_techniques.data.files import atomic_writer
from dl_techniques.evaluation.speed import median
from tools.compare_peers.gpu.measure import Listener, Row, Shape
from tools.compare_peers.gpu.peers import OURS
from tools.compare_peers.peers import LIMITS


class Reporter(Listener):
    """Prints rows and tables on stdout, progress on stderr, and keeps both files up to date.

    Args:
        shapes: all tables.
        about: facts of the run.
        folder: for `gpu.md` and `gpu.json`; None for no files.
    """

    def __init__(self, shapes: Sequence[Shape], about: dict[str, Any], folder: Path | None) -> None:
        self.shapes, self.about, self.folder = shapes, about, folder
        self.start = time.perf_counter()

    def ready(self, shape: Shape, row: Row) -> None:
        """A peer is loaded, or has failed to: failures are rows at once."""
        if row.reason is not None:
            self.failed(shape, row)
        else:
            self._progress(f"{shape.title}: {row.peer.name} ready after {row.loading:.0f} s")

    def failed(self, shape: Shape, row: Row) -> None:
        """A row that stays without times."""
        print(f"{shape.title}: {row.peer.name}: {row.reason}", flush=True)
        self._write()

    def turned(self, shape: Shape, row: Row, times: dict[str, float]) -> None:
        """Progress."""
        words = ", ".join(f"{name} {1000 * value:.2f} ms" for name, value in times.items())
        self._progress(f"{shape.title}: {row.peer.name} {words}")

    def rounded(self, shape: Shape) -> None:
        """A round is in the files before the next begins."""
        self._write()

    def finished(self, shape: Shape) -> None:
        """The table of a shape."""
        print(to_markdown(shape) + "\n", flush=True)
        self._write()

    def _progress(self, line: str) -> None:
        print(f"{time.perf_counter() - self.start:.0f} s {line}", file=sys.stderr, flush=True)

    def _write(self) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_writer(self.folder / "gpu.json") as file:
            file.write(json.dumps(to_json(self.shapes, self.about), indent=1) + "\n")
        with atomic_writer(self.folder / "gpu.md") as file:
            tables = [to_markdown(shape) for shape in self.shapes]
            file.write("\n\n".join([*tables, described(self.about, self.shapes)]) + "\n")


def to_markdown(shape: Shape) -> str:
    """A table: medians and fastest turns in ms, ratios to the baseline and the best of others."""
    names = list(dict.fromkeys(name for row in shape.rows for name in row.seconds))
    head = ["peer", "difference, largest", "rms"]
    for name in names:
        head += [f"{name.replace('_', ' ')}, ms", "fastest"]
        head += [f"x {rival.peer.name}" for rival in rivals(shape, name)]
    lines = [f"**{shape.title}**", "", _line(head), "|" + "---|" * len(head)]
    return "\n".join([*lines, *(_line(_cells(shape, row, names)) for row in shape.rows)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def rivals(shape: Shape, name: str) -> list[Row]:
    """What others are divided by: the baseline and the fastest that is not ours, where timed."""
    timed = [
        row
        for row in shape.rows
        if not row.peer.name.startswith(OURS) and row.median(name) is not None
    ]
    best = min(timed, key=lambda row: median(row.seconds[name]), default=None)
    return [row for row in timed if row is shape.rows[0] or row is best]


def _cells(shape: Shape, row: Row, names: Sequence[str]) -> list[str]:
    cells = [f"{row.peer.what} (`{row.peer.name}`)"]
    cells += ["-" if v is None else f"{v:.1e}" for v in (row.difference, row.rms)]
    times = [cell for name in names for cell in _times(row, name, rivals(shape, name))]
    if row.reason is None:
        return [*cells, *times]
    return [*cells, row.reason.replace("|", "/"), *["-"] * (len(times) - 1)]


def _times(row: Row, name: str, others: Sequence[Row]) -> list[str]:
    middle = row.median(name)
    if middle is None:
        return ["-"] * (2 + len(others))
    ratios = [f"{middle / median(other.seconds[name]):.2f}" for other in others]
    return [f"{1000 * middle:.2f}", f"{1000 * min(row.seconds[name]):.2f}", *ratios]


def described(about: dict[str, Any], shapes: Sequence[Shape]) -> str:
    """Device, packages, method."""
    devices = sorted({row.device for shape in shapes for row in shape.rows if row.device})
    packages = ", ".join(f"{name} {number}" for name, number in about["packages"].items())
    least = " / ".join(f"{s['least']} ({work})" for work, s in about["settings"].items())
    return (
        f"bfloat16, random weights, {' and '.join(devices) or 'no device'}, {about['cores']} cores "
        f"of {about['processor']}; medians of {about['repeats']} rounds in turns, each the median "
        f"of at least {least} runs; differences are from float32, relative to its largest value "
        f"(limit {LIMITS['bfloat16']:g}), and of root mean squares; {about['date']}; {packages}"
    )


def to_json(shapes: Sequence[Shape], about: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured."""
    return {**about, "shapes": [_plain_shape(shape) for shape in shapes]}


def _plain_shape(shape: Shape) -> dict[str, Any]:
    job = shape.job
    return {
        "work": job.work,
        "network": job.network,
        "image_size": job.image_size,
        "batch_size": job.batch_size,
        "peers": [_plain(row) for row in shape.rows],
    }


def _plain(row: Row) -> dict[str, Any]:
    return {
        "name": row.peer.name,
        "what": row.peer.what,
        "difference": row.difference,
        "rms": row.rms,
        "median": {name: row.median(name) for name in row.seconds},
        "seconds": row.seconds,
        "loading": row.loading,
        "device": row.device,
        "reason": row.reason,
    }
