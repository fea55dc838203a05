"""`fastvlm export PRESET --format F --output PATH`: files for other runtimes, checked."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_techniques.cli.notes import note
from dl_techniques.cli.options import PRESET_HELP, positive_int, positive_number, question
from dl_techniques.export.formats import FORMATS, PARTS, PRECISIONS

if TYPE_CHECKING:
    from dl_techniques.export.report import Check, ExportReport

MEGABYTE = 1_000_000


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "export",
        help="write a model for phones and other runtimes, and compare it with Keras",
        description=(
            "Fuses a copy of the model, writes it in another format, runs the file in its own "
            "runtime and compares the outputs with Keras. A file that computes something else is "
            "not kept: exit code 2."
        ),
    )
    parser.add_argument("source", metavar="PRESET", help=f"{PRESET_HELP}, or a .keras file")
    parser.add_argument("--format", required=True, choices=tuple(FORMATS), help="of the file")
    parser.add_argument("--output", required=True, type=Path, metavar="PATH", help="file to write")
    parser.add_argument("--part", choices=("auto", *PARTS), default="auto", help="of the model")
    parser.add_argument("--image-size", type=positive_int, metavar="N", help="side in pixels")
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="default: float32 (coreml: float16)"
    )
    parser.add_argument(
        "--dynamic-batch", action="store_true", help="leave the number of pictures open"
    )
    _add_picture_options(parser)
    _add_weight_options(parser)
    _add_vlm_options(parser)
    parser.add_argument("--force", action="store_true", help="replace PATH if it exists")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def _add_picture_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pictures",
        type=Path,
        metavar="FOLDER",
        help="compare the file with Keras on up to 16 pictures of this folder (default: eight "
        "photographs that come with the package; a whole model: four drawn pictures)",
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="FOLDER", help="pictures that int8_static needs"
    )
    parser.add_argument(
        "--gate",
        type=positive_number,
        metavar="X",
        help="largest difference from Keras that is accepted: relative to the largest value for "
        "float32 (default 1e-4), else the error's RMS relative to the output's spread",
    )


def _add_weight_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fewer bits (--format litert)")
    group.add_argument(
        "--block-size", type=positive_int, metavar="N", help="int4 weights that share a scale"
    )
    group.add_argument(
        "--skip", nargs="+", metavar="PATTERN", help="weights whose name it finds stay float32"
    )


def _add_vlm_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("whole models (--part vlm)")
    group.add_argument(
        "--prefill-lengths", type=positive_int, nargs="+", metavar="N", help="tokens read at once"
    )
    group.add_argument(
        "--cache-length", type=positive_int, metavar="N", help="longest conversation"
    )
    group.add_argument(
        "--question", type=question, help="asked about the pictures when the file is checked"
    )


def run(options: argparse.Namespace) -> int:
    """Exports, and prints the report."""
    from dl_techniques.export import export_model

    if not options.json:
        note(f"writing and checking {options.output} ...")
    lengths = options.prefill_lengths
    report = export_model(
        options.source,
        options.output,
        options.format,
        options.part,
        options.image_size,
        options.precision,
        options.dynamic_batch,
        options.pictures,
        options.calibration,
        options.force,
        options.gate,
        prefill_lengths=None if lengths is None else tuple(lengths),
        cache_length=options.cache_length,
        question=options.question,
        block_size=options.block_size,
        skip=options.skip,
    )
    print(json.dumps(_finite(report.to_json())) if options.json else as_text(report))
    return 0


def _finite(value: Any) -> Any:
    """JSON knows no infinity: the PSNR of equal arrays becomes null."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def as_text(report: ExportReport) -> str:
    """The report in lines."""
    size = sum(report.files.values()) / MEGABYTE
    files = f" in {len(report.files)} files" if len(report.files) > 1 else ""
    lines = [
        f"wrote    {report.path} ({size:.2f} MB{files})",
        f"what     {report.part}, {report.precision}, {report.format}",
        f"run by   {report.runtime or 'nothing here'}",
    ]
    lines += [f"checked  {_check_line(check)}" for check in report.checks]
    lines += [f"note     {note}" for note in report.notes]
    return "\n".join(lines)


def _check_line(check: Check) -> str:
    figures = [
        ("largest difference", check.max_difference, "{:.2g}"),
        ("relative", check.relative, "{:.2g}"),
        ("relative RMS", check.rms, "{:.2g}"),
        ("PSNR", check.psnr, "{:.1f} dB"),
        ("agreement", check.agreement, "{:.1%}"),
        ("in the top 5", check.top5, "{:.1%}"),
    ]
    said = [f"{word} {form.format(value)}" for word, value, form in figures if value is not None]
    return f"{check.what}, {check.samples} samples: {', '.join(said)} ({check.limit})"
