"""`optimize`: from a trained model to a small, measured file, along a recipe.

    prune -> distil -> quantization-aware training -> quantize -> export

Size, speed and accuracy before and after are those of LiteRT files: "before" is the model as it
is, exported in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dl_techniques.compression.classifier_files import (
    SUFFIX,
    Files,
    Measured,
    check_classifier,
)
from dl_techniques.compression.recipe import Recipe
from dl_techniques.compression.steps import Lesson, StepReport, run_steps

VLM = "FastVLMCausalLM"


@dataclass(frozen=True)
class OptimizeReport:
    """What came out.

    Attributes:
        source: what was optimized.
        output: the file that was written.
        recipe: the steps as they were done.
        pictures: number of held-out pictures, or questions about pictures, that accuracy was
            measured on; 0 without data.
        before: the model as it is, in float32.
        after: the file.
        steps: of training, each with its accuracy in Keras.
        notes: what the user has to know.
    """

    source: str
    output: str
    recipe: dict[str, Any]
    pictures: int
    before: Measured
    after: Measured
    steps: tuple[StepReport, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


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
    say: Callable[[str], None] = _silent,
) -> OptimizeReport:
    """Compresses a model along a recipe, exports it, and measures it before and after.

    Args:
        source: a FastVLM or MobileOne classifier, a FastVLMCausalLM, or a preset or file of one. It
            does not change. Of a vision-language model the parts are quantized and exported; its
            steps of training are not supported.
        output: the `.tflite` file to write; for a vision-language model a folder, or with the
            format "litertlm" a file. What training made is kept beside it, as NAME.keras.
        recipe: what to do.
        data: for a classifier a folder of class folders, see `read_labelled`; the sorted folders
            are the classes 0, 1, ... of the network. Needed by steps that train, and by static
            int8. For a vision-language model a folder of question sets, see
            `dl_techniques.evaluation`.
        limit: pictures of each class and split, or questions of each set.
        overwrite: replace what stands at `output`.
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
    from dl_techniques.loading.load import class_of, load_source

    named = isinstance(source, (str, Path))
    model = load_source(source) if named else source
    name = str(source) if named else model.name
    if class_of(model) == VLM:
        from dl_techniques.compression.optimizing_vlm import optimize_vlm

        sets = None if data is None else Path(data)
        return optimize_vlm(
            model, name, Path(output), recipe, sets, limit, overwrite=overwrite, say=say
        )
    return _optimize_classifier(model, name, Path(output), recipe, data, limit, overwrite, say)


def _optimize_classifier(
    model: Any, name: str, output: Path, recipe: Recipe, data: Any, limit: int | None,
    overwrite: bool, say: Callable[[str], None],
) -> OptimizeReport:  # fmt: skip
    from dl_techniques.export.staging import check_target

    check_classifier(model, recipe)
    check_target(output, SUFFIX, False, overwrite)
    files = Files(model, recipe, None if data is None else Path(data))
    train, held_out = files.read(limit, say)
    say("measuring the model as it is")
    before = files.measure_float(model, held_out)
    network: Any = model
    steps: list[StepReport] = []
    if train is not None and held_out is not None and recipe.trains:
        lesson = Lesson(train, held_out, model.preprocessing, recipe.training)
        network, steps = run_steps(model, recipe, lesson, say)
        network.save(output.with_suffix(".keras"))
    say(f"writing and checking {output}")
    notes = files.write(network, output, overwrite=True)
    after = files.measure(output, network, held_out)
    count = 0 if held_out is None else len(held_out.labels)
    return OptimizeReport(
        name, str(output), asdict(recipe), count, before, after, tuple(steps), notes
    )
