"""`fastvlm optimize PRESET --recipe FILE | --target-mb N`: a smaller model, measured."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_techniques.cli.notes import note
from dl_techniques.cli.options import PRESET_HELP, positive_int, positive_number

if TYPE_CHECKING:
    from dl_techniques.compression.optimization.classifier_files import Measured
    from dl_techniques.compression.optimization.optimizing import OptimizeReport
    from dl_techniques.compression.optimization.recipe import Recipe

MEGABYTE = 1_000_000


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "optimize",
        help="make a model smaller and faster, and measure what it costs",
        description=(
            "Prunes, distils, trains with rounding, quantizes and exports to LiteRT, as a recipe "
            "says or until a size is reached; prints size, latency and accuracy before and after. "
            "Of vision-language models the parts are quantized and exported, and asked questions."
        ),
    )
    parser.add_argument("source", metavar="PRESET", help=f"{PRESET_HELP}, or a .keras file")
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--recipe", type=Path, metavar="YAML", help="the steps to do")
    goal.add_argument(
        "--target-mb",
        type=positive_number,
        metavar="MB",
        help="the mildest steps that reach this size",
    )
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER",
        help="train/CLASS/* and test/CLASS/*, or CLASS/*; question sets for a language model",
    )  # fmt: skip
    parser.add_argument("--output", required=True, type=Path, metavar="PATH", help="file to write")
    parser.add_argument(
        "--limit", type=positive_int, metavar="N", help="pictures a class, or questions a set"
    )
    parser.add_argument(
        "--work", type=Path, metavar="FOLDER",
        help="keep the state of training here, so that the same command goes on after a kill",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace PATH if it exists")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Optimizes, and prints the report."""
    from dl_techniques.compression.optimization.optimizing import optimize

    report = optimize(
        options.source,
        options.output,
        chosen_recipe(options),
        options.data,
        limit=options.limit,
        overwrite=options.force,
        work=options.work,
        say=say,
    )
    print(json.dumps(report.to_json(), indent=2) if options.json else as_text(report))
    return 0


def say(line: str) -> None:
    """What is being done, on stderr."""
    note(f"{line} ...")


def chosen_recipe(options: argparse.Namespace) -> Recipe:
    """The recipe of the file, or the one that reaches the size."""
    from dl_techniques.compression.optimization.recipe import Recipe
    from dl_techniques.compression.optimization.recipe_parts import Export
    from dl_techniques.compression.optimization.target import recipe_for_size

    if options.recipe is not None:
        return Recipe.from_file(options.recipe)
    format_name = "litertlm" if options.output.suffix == ".litertlm" else "litert"
    return recipe_for_size(
        options.source,
        options.target_mb,
        export=Export(format_name),
        trainable=options.data is not None,
        say=say,
    )


def as_text(report: OptimizeReport) -> str:
    """The report as a table and lines."""
    rows = [("", "size", "parameters", "latency", "accuracy")]
    rows += [("before", *cells(report.before)), ("after", *cells(report.after))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(w) if i else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines += [f"step     {step_line(step)}" for step in report.steps]
    share = report.after.bytes / report.before.bytes
    lines.append(f"wrote    {report.output}, {share:.2f} of the float32 size")
    if report.pictures:
        lines.append(f"measured on {report.pictures} held-out examples, LiteRT, one thread")
    return "\n".join([*lines, *(f"note     {note}" for note in report.notes)])


def cells(measured: Measured) -> tuple[str, str, str, str]:
    """Size, parameters, latency and accuracy of one file; a dash where there is none."""
    time, share = measured.milliseconds, measured.accuracy
    return (
        f"{measured.bytes / MEGABYTE:.2f} MB",
        f"{measured.parameters:,}",
        "-" if time is None else f"{time:.2f} ms",
        "-" if share is None else f"{100 * share:.2f} %",
    )


def step_line(step: Any) -> str:
    """One step of training."""
    return (
        f"{step.name}: {step.epochs} epochs, {step.seconds:.0f} s, {step.parameters:,} parameters, "
        f"{100 * step.accuracy:.2f} % in Keras"
    )
