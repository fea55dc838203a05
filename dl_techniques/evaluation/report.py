"""The result of an evaluation as a table for people and as JSON for programs."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Sequence
from typing import Any

from dl_techniques.evaluation.calibration import auroc, calibration_error
from dl_techniques.evaluation.manner import Told
from dl_techniques.evaluation.runner import SetResult

COLUMNS = ("set", "n", "exact match", "95 %", "majority", "question only", "shuffled", "ECE", "s")

TOLD_COLUMNS = (
    "set", "right", "95 %", "majority", "question only", "shuffled", "plain", "right of these",
    "hedged", "right among two", "not sure", "yes for no", "things that are there",
)  # fmt: skip


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
    sure = certainty_figures(results)
    return {
        "preset": preset,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "seconds": round(seconds, 2),
        "sets": [result.as_dict() for result in results],
        **({"certainty": sure} if sure else {}),
    }


def certainty_figures(results: Sequence[SetResult]) -> dict[str, Any]:
    """Over all sets: how far certainty is from the rate of right answers, and whether it tells what
    is known from what is not. Nothing where no answer has a certainty.

    An answer that names nothing claims nothing, so that it counts for the second figure alone.
    """
    results = [result for result in results if result.certainties]
    if not results:
        return {}
    claims = [result.claims() for result in results]
    sure = [value for values, _ in claims for value in values]
    right = [value for _, values in claims for value in values]
    known = [value for result in results for value in _certainties(result, True)]
    unknown = {result.name: _certainties(result, False) for result in results}
    return {
        "n": len(sure),
        "calibration_error": calibration_error(sure, right) if sure else None,
        "known": len(known),
        "unknown": sum(map(len, unknown.values())),
        "known_from_unknown": _told_apart(known, sum(unknown.values(), [])),
        "known_from_unknown_by_set": {
            name: _told_apart(known, values) for name, values in unknown.items() if values
        },
    }


def _certainties(result: SetResult, known: bool) -> list[float]:
    pairs = zip(result.certainties, result.known, strict=True)
    return [value for value, is_known in pairs if is_known is known]


def _told_apart(known: list[float], unknown: list[float]) -> float | None:
    """AUROC; None where there is one kind alone."""
    if not known or not unknown:
        return None
    return auroc(known, unknown)


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


def told_row(name: str, told: Told) -> tuple[str, ...]:
    """The cells of one set in the table about how answers are put."""
    low, high = told.accepted_interval
    things = f"{percent(told.things_right)} of {told.things}" if told.things else "-"
    return (
        name,
        percent(told.accepted),
        f"{percent(low)}-{percent(high)}",
        percent(told.majority),
        percent(told.question_only),
        percent(told.shuffled),
        percent(told.plain),
        percent(told.plain_right),
        percent(told.hedged),
        percent(told.hedged_right),
        percent(told.refused),
        f"{percent(told.false_yes)} of {told.asked_no}" if told.asked_no else "-",
        things,
    )


def to_table(report: dict[str, Any], results: Sequence[SetResult]) -> str:
    """The report as Markdown: a table of exact match, one of how answers are put where a set has
    more than exact answers, and a line that says where it was measured."""
    lines = _table([COLUMNS, *(row(result) for result in results)])
    told = [told_row(result.name, result.told) for result in results if result.told]
    if told:
        lines += ["", *_table([TOLD_COLUMNS, *told])]
    sure = report.get("certainty")
    if sure:
        apart = sure["known_from_unknown"]
        lines.append(
            f"\ncertainty: ECE {percent(sure['calibration_error'])} % over {sure['n']} answers; "
            f"AUROC {'-' if apart is None else format(apart, '.3f')}, {sure['known']} known "
            f"against {sure['unknown']} unknown"
        )
    place = report["machine"]
    lines.append(
        f"\npreset {report['preset']}, {report['date']}, {place['backend']}, "
        f"{place['processor']}, {place['cores']} cores, {report['seconds']} s in all"
    )
    return "\n".join(lines)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(cells, widths, strict=True)) + " |"
        for cells in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
