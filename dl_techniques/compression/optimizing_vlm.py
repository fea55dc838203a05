"""`optimize` for a vision-language model: its parts are quantized and written; nothing trains."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dl_techniques.compression.classifier_files import Measured
from dl_techniques.compression.optimizing import OptimizeReport
from dl_techniques.compression.recipe import Recipe
from dl_techniques.errors import CompressionError
from dl_techniques.export.report import Check, ExportReport

UNMEASURED = (
    "accuracy is not measured here: the checks compare greedy tokens with Keras; measure the model "
    "on questions with fastvlm evaluate"
)


def optimize_vlm(
    model: Any, name: str, output: Path, recipe: Recipe, *, overwrite: bool,
    say: Callable[[str], None],
) -> OptimizeReport:  # fmt: skip
    """Writes a FastVLMCausalLM in the recipe's precision and compares sizes with float32.

    Raises:
        CompressionError: the recipe trains, which vision-language models do not support here.
        ExportError: the format cannot have the precision, or the files compute something else.
    """
    if recipe.trains:
        raise CompressionError(
            "prune, distil and quantization_aware take classifiers; of a vision-language model "
            "leave them out (its encoder can be optimized by itself, and its parts quantized)"
        )
    say("writing and checking the model as it is")
    before = _float_size(model, recipe)
    say(f"writing and checking {output}")
    report = export(model, output, recipe, recipe.precision, overwrite=overwrite)
    parameters = int(model.backbone.count_params())
    return OptimizeReport(
        name,
        str(output),
        asdict(recipe),
        0,
        Measured(before, parameters, None, None),
        Measured(size_of(report), parameters, None, None),
        (),
        (*map(said, report.checks), *report.notes, UNMEASURED),
    )


def export(
    model: Any, output: Path, recipe: Recipe, precision: str, *, overwrite: bool = False
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


def _float_size(model: Any, recipe: Recipe) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return size_of(export(model, temporary_target(folder, recipe), recipe, "float32"))


def size_of(report: ExportReport) -> int:
    """Bytes of all files of an export."""
    return sum(report.files.values())


def said(check: Check) -> str:
    """A comparison in words."""
    if check.agreement is not None:
        return f"{check.what}: {100 * check.agreement:.1f} % equal ({check.limit})"
    return f"{check.what}: {check.limit}, measured {check.relative:.3g}"
