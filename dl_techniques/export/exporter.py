"""`export_model`: from a model to a checked file of another runtime."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from dl_techniques.errors import ExportError
from dl_techniques.export.formats import check_extra, format_of
from dl_techniques.export.pictures import picture_files
from dl_techniques.export.report import ExportReport
from dl_techniques.export.request import ExportRequest
from dl_techniques.export.staging import check_target, staged


def export_model(
    source: Any,
    path: str | Path,
    format: str,
    part: str = "auto",
    image_size: int | None = None,
    precision: str | None = None,
    dynamic_batch: bool = False,
    pictures: str | Path | None = None,
    calibration: str | Path | None = None,
    overwrite: bool = False,
    gate: float | None = None,
    **options: Any,
) -> ExportReport:
    """Writes a model, or a part of it, for another runtime, and proves that it computes the same.

    A copy is fused and folded, written under the backend that is sound for the format (in a
    process of its own if that is not the current one), run in the format's real runtime, and
    compared with the model as it is. Only a file that passes gets its name.

    Args:
        source: a FastVLM, MobileOne or FastVLMCausalLM; or the name of a shipped preset, a folder
            or a `.keras` file.
        path: the file to write, or the folder for "saved_model" and for a whole model in "litert".
        format: "litert", "onnx", "openvino", "coreml", "saved_model", "torch" or "litertlm".
        part: "classifier" (logits), "features" (all maps), "encoder" (the last map; of a
            vision-language model the rows that its decoder reads), "vlm" (all of it), or "auto":
            what the source is made for.
        image_size: side of the pictures in pixels. Defaults to the source's own.
        precision: "float32", "float16", "int8", "int8_static", "int8_weights", "int4_weights", as
            the format can. Defaults to float32; for "coreml" to float16.
        dynamic_batch: leave the number of pictures open, where the format can.
        pictures: folder with pictures to compare on. Defaults to the shipped photographs.
        calibration: folder with pictures that give "int8_static" its ranges.
        overwrite: replace what stands at `path`, once the new file has passed.
        gate: how far the file may be from Keras, in the measure of its precision. Defaults to
            what `gates.GATES` says; whole models are compared by their own rules.
        **options: for whole models: `prefill_lengths`, `cache_length`, `question`; for
            "litert": `block_size` and `skip` of `litert_precision.requantize`.

    Returns:
        What was written and how it compares.

    Raises:
        ExportError: an impossible request, or a file that computes something else.
        CompressionError: weights or pictures that do not allow the precision.
        PresetError: the source cannot be loaded.
        MissingExtraError: a package is missing; names the extra.

    Example:
        >>> from dl_techniques import FastVLM
        >>> from dl_techniques.export import export_model
        >>> model = FastVLM.from_variant("nano", input_shape=(64, 64, 3))
        >>> report = export_model(model, "nano.tflite", "litert")  # doctest: +SKIP
        >>> report.checks[0].relative < 1e-4  # doctest: +SKIP
        True
    """
    request = ExportRequest(
        format,
        part,
        precision,
        image_size,
        dynamic_batch,
        _folder(pictures),
        _folder(calibration),
        gate,
        {name: value for name, value in options.items() if value is not None},
    )
    form, target = format_of(format), Path(path)
    check_extra(form)
    whole = form.vlm_is_folder and _is_whole(source, part)
    if whole and target.suffix == form.suffix:
        raise ExportError(
            f"a whole model is a folder of files: give a name that does not end in {form.suffix}, "
            "or the part encoder"
        )
    is_folder = whole or format in FOLDERS
    check_target(target, "" if whole else form.suffix, is_folder, overwrite)
    with staged(target) as staging:
        report = _export(source, request, form.backend, staging)
    return dataclasses.replace(report, path=str(target))


FOLDERS = ("saved_model", "coreml")


def _folder(folder: str | Path | None) -> str | None:
    """A folder of pictures by its whole path, once it is known that there are some."""
    if folder is None:
        return None
    picture_files(folder, 1)
    return str(Path(folder).resolve())


def _is_whole(source: Any, part: str) -> bool:
    """Whether the whole vision-language model is meant."""
    from dl_techniques.loading.source import find

    return part == "vlm" or (part == "auto" and find(source).answers_questions)


def _export(source: Any, request: ExportRequest, backend: str, path: Path) -> ExportReport:
    """Here, or in a process with the right backend."""
    import keras

    from dl_techniques.export.worker import run_in_worker
    from dl_techniques.loading.source import hand_over, load

    named = isinstance(source, (str, Path))
    if keras.backend.backend() == backend:
        from dl_techniques.export.perform import perform

        return perform(load(source) if named else source, request, path)
    if named:
        return run_in_worker(backend, _resolved(source), request, path)
    with tempfile.TemporaryDirectory() as folder:
        return run_in_worker(backend, hand_over(source, Path(folder)), request, path)


def _resolved(source: str | Path) -> str:
    """A local path from everywhere; names stay."""
    path = Path(source).expanduser()
    return str(path.resolve()) if path.exists() else str(source)
