"""`optimize` for a vision-language model: its parts quantized and written, then asked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dl_techniques.compression.optimization.classifier_files import Measured
from dl_techniques.compression.optimization.measure_vlm import (
    first_token_milliseconds,
    right_answers,
)
from dl_techniques.compression.optimization.optimize_report import OptimizeReport
from dl_techniques.compression.optimization.recipe import Recipe
from dl_techniques.errors import CompressionError
from dl_techniques.evaluation import QuestionSet, load_sets
from dl_techniques.evaluation.answerer import open_answerer
from dl_techniques.export.report import Check, ExportReport

if TYPE_CHECKING:
    import keras

UNMEASURED = (
    "no questions were given, so speed and accuracy are not measured: name a folder of question "
    "sets with --data, as for fastvlm evaluate"
)


def optimize_vlm(
    model: keras.Model, name: str, output: Path, recipe: Recipe, data: Path | None,
    limit: int | None, *,
    overwrite: bool, say: Callable[[str], None],
) -> OptimizeReport:  # fmt: skip
    """Writes a FastVLMCausalLM in the recipe's precision and measures it beside float32.

    Args:
        model: the FastVLMCausalLM.
        name: in the report.
        output: a folder for the format "litert", a file for "litertlm".
        recipe: precision, format.
        data: folder of question sets, see `dl_techniques.evaluation`.
        limit: questions of each set.
        overwrite: replace what stands at `output`.
        say: called with a line before each step.

    Raises:
        CompressionError: the recipe trains, which vision-language models do not support here.
        DLTechniquesError: no set of questions in `data`, or a damaged one.
        ExportError: the format cannot have the precision, or the files compute something else.
    """
    if recipe.trains:
        raise CompressionError(
            "prune, distil and quantization_aware take classifiers; of a vision-language model "
            "leave them out (its encoder can be optimized by itself, and its parts quantized)"
        )
    sets = [] if data is None else load_sets(data, limit)
    parameters = int(model.backbone.count_params())
    say("writing, checking and measuring the model as it is")
    with tempfile.TemporaryDirectory() as folder:
        target = temporary_target(folder, recipe)
        size = size_of(export(model, target, recipe, "float32"))
        before, right_before = measure(target, size, parameters, sets)
    say(f"writing, checking and measuring {output}")
    report = export(model, output, recipe, recipe.precision, overwrite=overwrite)
    after, right_after = measure(output, size_of(report), parameters, sets)
    counts = {questions.name: len(questions.records) for questions in sets}
    by_set = tuple(
        f"{asked}: {100 * right_before[asked] / n:.1f} % right before, "
        f"{100 * right_after[asked] / n:.1f} % after, of {n} questions"
        for asked, n in counts.items()
    )
    return OptimizeReport(
        name,
        str(output),
        asdict(recipe),
        sum(counts.values()),
        before,
        after,
        (),
        (*map(said, report.checks), *report.notes, *(by_set or (UNMEASURED,))),
    )


def measure(
    path: Path, size: int, parameters: int, sets: list[QuestionSet]
) -> tuple[Measured, dict[str, int]]:
    """An exported model's figures, and its right answers in each set; no sets, no time."""
    if not sets:
        return Measured(size, parameters, None, None), {}
    with open_answerer(path, threads=1) as answerer:
        right = right_answers(answerer, sets)
        records = [record for questions in sets for record in questions.records]
        milliseconds = first_token_milliseconds(answerer, records)
    return Measured(size, parameters, milliseconds, sum(right.values()) / len(records)), right


def export(
    model: keras.Model, output: Path, recipe: Recipe, precision: str, *, overwrite: bool = False
) -> ExportReport:
    """All parts in one precision."""
    from dl_techniques.export import export_model

    quantize = recipe.quantize if precision != "float32" else None
    return export_model(
        model,
        output,
        recipe.export.format,
        part="vlm",
        image_size=recipe.export.image_size,
        precision=precision,
        overwrite=overwrite,
        block_size=quantize.block_size if quantize else None,
        skip=(quantize.skip or None) if quantize else None,
    )


def temporary_target(folder: str, recipe: Recipe) -> Path:
    """A place to write to: a folder for "litert", a file for "litertlm"."""
    return Path(folder) / ("model.litertlm" if recipe.export.format == "litertlm" else "model")


def size_of(report: ExportReport) -> int:
    """Bytes of all files of an export."""
    return sum(report.files.values())


def said(check: Check) -> str:
    """A comparison in words."""
    if check.agreement is not None:
        return f"{check.what}: {100 * check.agreement:.1f} % equal ({check.limit})"
    return f"{check.what}: {check.limit}, measured {check.relative:.3g}"
