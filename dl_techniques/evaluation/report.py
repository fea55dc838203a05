"""The result of an evaluation as a table for people and as JSON for programs."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Sequence
from typing import Any

from dl_techniques.evaluation.runner import SetResult

COLUMNS = ("set", "n", "exact match", "95 %", "majority", "question only", "shuffled", "ECE", "s")


def machine() -> dict[str, Any]:
    """The machine and the software that a figure was measured on."""
    import keras

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
    }


def processor_name() -> str:
    """The model of the processor as the system tells it, or its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [
                line.partition(":")[2].strip() for line in file if line.startswith("model name")
            ]
    except FileNotFoundError:  # only Linux has it
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def as_report(preset: str, results: Sequence[SetResult], seconds: float) -> dict[str, Any]:
    """Everything that was measured, ready for JSON.

    Args:
        preset: what was evaluated.
        results: one per set.
        seconds: the whole run, baselines included.
    """
    return {
        "preset": preset,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "seconds": round(seconds, 2),
        "sets": [result.as_dict() for result in results],
    }


def to_json(report: dict[str, Any]) -> str:
    """The report as JSON text with a final newline."""
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def percent(value: float | None) -> str:
    """A fraction in per cent with one decimal; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.1f}"


def row(result: SetResult) -> tuple[str, ...]:
    """The cells of one set."""
    low, high = result.interval
    return (
        result.name,
        str(result.n),
        percent(result.exact_match),
        f"{percent(low)}-{percent(high)}",
        percent(result.majority),
        percent(result.question_only),
        percent(result.shuffled),
        percent(result.calibration_error),
        f"{result.seconds:.1f}",
    )


def to_table(report: dict[str, Any], results: Sequence[SetResult]) -> str:
    """The report as a Markdown table, with a line that says where it was measured."""
    rows = [COLUMNS, *(row(result) for result in results)]
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"
        for cells in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    place = report["machine"]
    lines.append(
        f"\npreset {report['preset']}, {report['date']}, {place['backend']}, "
        f"{place['processor']}, {place['cores']} cores, {report['seconds']} s in all"
    )
    return "\n".join(lines)
