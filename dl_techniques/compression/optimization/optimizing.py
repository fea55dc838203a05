"""`optimize`: from a trained model to a small, measured file, along a recipe.

    prune -> distil -> quantization-aware training -> quantize -> export

Size, speed and accuracy before and after are those of LiteRT files: "before" is the model as it
is, exported in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_techniques.compression.optimization.classifier_files import (
    SUFFIX,
    Files,
    chance_notes,
    check_classifier,
)
from dl_techniques.compression.optimization.optimize_report import OptimizeReport
from dl_techniques.compression.optimization.recipe import Recipe
from dl_techniques.compression.optimization.steps import Lesson, StepReport, run_steps
from dl_techniques.errors import CompressionError

if TYPE_CHECKING:
    import keras


def _silent(line: str) -> None:
    """Says nothing."""


def optimize(
    source: Any,
    output: str | Path,
    recipe: Recipe,
    data: str | Path | None = None,
    *,
    limit: int | None = None,
    overwrite: bool = False,
    work: str | Path | None = None,
    say: Callable[[str], None] = _silent,
) -> OptimizeReport:
    """Compresses a model along a recipe, exports it, and measures it before and after.

    Args:
        source: a FastVLM or MobileOne classifier, a FastVLMCausalLM, or a preset or file of one. It
            does not change. Of a vision-language model the parts are quantized and exported; its
            steps of training are not supported. Pictures are given as the network takes them:
            pixels in [0, 1], or 0..255 where it has `include_preprocessing`.
        output: the `.tflite` file to write; for a vision-language model a folder, or with the
            format "litertlm" a file. What training made is kept beside it, as NAME.keras.
        recipe: what to do.
        data: for a classifier a folder of class folders, see `read_labelled`; the sorted folders
            are the classes 0, 1, ... of the network. Needed by steps that train, and by static
            int8. For a vision-language model a folder of question sets, see
            `dl_techniques.evaluation`.
        limit: pictures of each class and split, or questions of each set.
        overwrite: replace what stands at `output`.
        work: folder in which training keeps its state, so that the same call goes on after a kill;
            None keeps nothing. Another call takes another folder.
        say: called with a line before each step.

    Raises:
        CompressionError: data or steps that do not fit the model.
        ExportError: the file computes something else than the model, or cannot be written there.

    Example:
        >>> from dl_techniques.compression import Recipe, optimize
        >>> recipe = Recipe.from_dict({"quantize": {"precision": "int8"}})
        >>> report = optimize("tiny.keras", "t.tflite", recipe, "pets")  # doctest: +SKIP
        >>> report.after.bytes / report.before.bytes  # doctest: +SKIP
        0.3
    """
    from dl_techniques.loading.source import load
    from dl_techniques.models.picture_network import picture_network

    named = isinstance(source, (str, Path))
    model = load(source) if named else source
    name = str(source) if named else model.name
    if "vlm" in picture_network(model).parts():
        from dl_techniques.compression.optimization.optimizing_vlm import optimize_vlm

        sets = None if data is None else Path(data)
        return optimize_vlm(
            model, name, Path(output), recipe, sets, limit, overwrite=overwrite, say=say
        )
    place = None if work is None else Path(work)
    return _optimize_classifier(
        model, name, Path(output), recipe, data, limit, overwrite, place, say
    )


def _optimize_classifier(
    model: keras.Model, name: str, output: Path, recipe: Recipe, data: Any, limit: int | None,
    overwrite: bool, work: Path | None, say: Callable[[str], None],
) -> OptimizeReport:  # fmt: skip
    from dl_techniques.export.staging import check_target, staged

    check_classifier(model, recipe)
    check_target(output, SUFFIX, False, overwrite)
    kept = output.with_suffix(".keras")
    if recipe.trains and data is not None:
        _refuse_source(kept, name)
        check_target(kept, ".keras", False, overwrite)
    files = Files(model, recipe, None if data is None else Path(data))
    train, held_out = files.read(limit, say)
    say("measuring the model as it is")
    before = files.measure_float(model, held_out)
    warnings = () if held_out is None else chance_notes(model, before.accuracy, held_out)
    for warning in warnings:
        say(f"warning: {warning}")
    network: Any = model
    steps: list[StepReport] = []
    if train is not None and held_out is not None and recipe.trains:
        inside = model.include_preprocessing
        lesson = Lesson(train, held_out, model.preprocessing, recipe.training, inside, work)
        network, steps = run_steps(model, recipe, lesson, say)
        with staged(kept) as path:
            network.save(path)
    say(f"writing and checking {output}")
    notes = files.write(network, output, overwrite=True)
    after = files.measure(output, network, held_out)
    count = 0 if held_out is None else len(held_out.labels)
    return OptimizeReport(
        name, str(output), asdict(recipe), count, before, after, tuple(steps), (*warnings, *notes)
    )


def _refuse_source(kept: Path, source: str) -> None:
    """What training makes never takes the place of what it started from.

    Raises:
        CompressionError: both would have one name.
    """
    if kept.exists() and Path(source).exists() and kept.samefile(source):
        raise CompressionError(
            f"what training makes is kept as {kept}, which is the model to start from; give the "
            "output another name"
        )
