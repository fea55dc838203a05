"""The benchmark's report as tables for people."""

from __future__ import annotations

from typing import Any

PHASES = ("preprocess", "encode", "project", "prefill", "first_decode", "first_token")


def to_text(report: dict[str, Any]) -> str:
    """The report for a person: the tables, then what they were measured on.

    Args:
        report: of `fastvlm benchmark --json`.
    """
    lines = aligned(answer_rows(report)) if "warm" in report else []
    if "encoder" in report:
        lines += encoder_lines(report["encoder"])
    lines.append(described("machine", report["machine"]))
    if "warm" in report:
        lines.append(described("model", report["warm"]["model"]))
    return "\n".join(lines)


def described(name: str, fields: dict[str, Any]) -> str:
    """One line of facts."""
    return f"{name}: " + ", ".join(f"{k} {v}" for k, v in fields.items())


def aligned(rows: list[tuple[str, str]]) -> list[str]:
    """Names on the left, figures with their units on the right."""
    width = max(len(name) for name, _ in rows)
    return [f"{name.ljust(width)}  {figure:>16}" for name, figure in rows]


def milliseconds(seconds: float | None) -> str:
    """Seconds as milliseconds; a dash where there are none."""
    return "-" if seconds is None else f"{1000 * seconds:.1f} ms"


def answer_rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and figures of cold starts, of a warm answer and of a conversation."""
    rows = []
    for name, run_times in report.get("cold", {}).items():
        first, memory = run_times["first_text_seconds"], run_times["peak_megabytes"]
        rows.append((f"{name}: Enter to the first text", f"{first:.2f} s"))
        rows.append((f"{name}: peak memory", f"{memory:.0f} MB"))
    times = report["warm"]["times"]
    rows += [(f"warm: {n.replace('_', ' ')}", milliseconds(times[n])) for n in PHASES]
    rate = times["tokens_per_second"]
    rows.append(("warm: decoding", "-" if rate is None else f"{rate:.1f} tokens/s"))
    rows.append(("warm: tokens of the answer", str(times["tokens"])))
    rows += conversation_rows(report["warm"]["conversation"])
    rows.append(("warm: peak memory", f"{report['warm']['peak_megabytes']:.0f} MB"))
    return rows


def conversation_rows(talk: dict[str, Any]) -> list[tuple[str, str]]:
    """First text and rate of every question about the same picture."""
    rows = []
    for number, turn in enumerate(talk["turns"], 1):
        rows.append((f"question {number}: first text", milliseconds(turn["first_token"])))
        rows.append(
            (f"question {number}: each further token", milliseconds(turn["seconds_per_token"]))
        )
    ratio = talk["second_over_first"]
    shown = "no text to the first" if ratio is None else f"{100 * ratio:.1f} %"
    rows.append(("second question over first", shown))
    return rows


def encoder_lines(encoder: dict[str, Any]) -> list[str]:
    """A row for each resolution and batch size, a column for each form, then the growth."""
    times = encoder["times"]
    forms = list(dict.fromkeys(cell["form"] for cell in times))
    cells = {(c["resolution"], c["batch_size"], c["form"]): c["seconds"] for c in times}
    head = f"{'encoder: ' + encoder['network']:<28}{'batch':>6}"
    lines = [head + "".join(f"{form:>14}" for form in forms)]
    for size, batch in dict.fromkeys((c["resolution"], c["batch_size"]) for c in times):
        shown = "".join(f"{milliseconds(cells[size, batch, form]):>14}" for form in forms)
        lines.append(f"{f'{size} px':>28}{batch:>6}{shown}")
    exponents = {(g["form"], g["batch_size"]): g["exponent"] for g in encoder["growth"]}
    for batch in dict.fromkeys(batch for _, batch in exponents):
        shown = "".join(f"{exponents[form, batch]:>14.3f}" for form in forms)
        lines.append(f"{'growth: time ~ pixels^':>28}{batch:>6}{shown}")
    memory = f"{encoder['peak_megabytes']:.0f} MB"
    lines.append(f"precision {encoder['precision']}, peak memory of the process {memory}")
    return lines
