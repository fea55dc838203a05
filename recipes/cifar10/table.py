"""The table of the README: size, accuracy and speed of every run in a work folder.

Example:
    python -m recipes.cifar10.table --work WORK
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from recipes.cifar10.results import Result, read_all

HEADER = ("model", "MB", "ratio", "accuracy", "points", "ms", "speed", "epochs")
REFERENCE = "tiny-float32"
ALONE = "student-float32"
STEPS = ("quantize", "qat", "prune", "distil")


def cells(result: Result, reference: Result) -> tuple[str, ...]:
    """One row; ratio, points and speed are against the reference."""
    points = 100 * (result.accuracy - reference.accuracy)
    return (
        result.name,
        f"{result.bytes / 1e6:.2f}",
        f"{result.bytes / reference.bytes:.2f}",
        f"{100 * result.accuracy:.2f} %",
        f"{points:+.2f}",
        f"{result.milliseconds:.2f}",
        f"{reference.milliseconds / result.milliseconds:.2f}x",
        str(result.epochs) if result.epochs else "-",
    )


def rows(found: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    """The rows in the order of `STEPS`."""
    by_name = {result.name: result for result in found}
    if REFERENCE not in by_name:
        raise SystemExit(f"error: no result {REFERENCE}; run recipes.cifar10.quantize first")
    for step in STEPS:
        for result in found:
            if result.step == step:
                yield cells(result, by_name[REFERENCE])


def gain(found: Sequence[Result]) -> str | None:
    """How much better the student is under a teacher, where both were trained."""
    by_name = {result.name: result for result in found}
    if ALONE not in by_name or "distilled-float32" not in by_name:
        return None
    alone, taught = by_name[ALONE], by_name["distilled-float32"]
    share = alone.parameters / by_name[REFERENCE].parameters
    points = 100 * (taught.accuracy - alone.accuracy)
    return (
        f"The student has {share:.2f} of the teacher's parameters; distillation gains "
        f"{points:+.2f} points over the same student trained alone ({taught.epochs} and "
        f"{alone.epochs} epochs)."
    )


def markdown(found: Sequence[Result]) -> str:
    """The whole text: table, gain, how and where it was measured."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---" * len(HEADER) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows(found)]
    said = gain(found)
    lines += ["", said] if said else []
    last = max(found, key=lambda result: result.date)
    lines += [
        "",
        f"CIFAR-10, {last.pictures} test pictures, LiteRT, one thread, batch 1; ratio, points and "
        f"speed against {REFERENCE}. Measured on {last.machine['processor']}, "
        f"{last.machine['cores']} cores, {last.date[:10]}:",
        "",
        *(f"    {command}" for command in dict.fromkeys(r.command for r in found)),
    ]
    return "\n".join(lines)


def main() -> None:
    """Prints it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    print(markdown(read_all(parser.parse_args().work)))


if __name__ == "__main__":
    main()
