"""One export from beginning to end, in a process whose backend is the format's."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dl_techniques.errors import ExportError
from dl_techniques.export.formats import WEIGHT_OPTIONS, format_of
from dl_techniques.export.gates import compare_outputs, refuse_failed
from dl_techniques.export.networks import resolve_part
from dl_techniques.export.pictures import CALIBRATED, COMPARED, compared_on, picture_files
from dl_techniques.export.report import Check, ExportReport
from dl_techniques.export.request import ExportRequest
from dl_techniques.export.subject import PIXELS, Outputs, Subject, make_subject, outputs_of
from dl_techniques.export.writers.job import Job, Runner, writer_of

if TYPE_CHECKING:
    import keras


def perform(model: keras.Model, request: ExportRequest, path: Path) -> ExportReport:
    """Writes a file and compares it with Keras.

    Args:
        model: the source, loaded; it does not change.
        request: what is wanted.
        path: where to write; nothing stands there yet.

    Raises:
        ExportError: the source or the request does not fit, or the file computes something else.
    """
    part = resolve_part(model, request.part, format_of(request.format).parts)
    if part == "vlm":
        return _whole_model(model, request, path)
    if request.format == "litert" and learned_rounding(model):
        return _trained_integers(model, part, request, path)
    subject = make_subject(model, part, request.image_size, request.dynamic_batch)
    inputs = subject.inputs(request.pictures, COMPARED)
    calibration = None
    if request.precision == "int8_static":
        calibration = subject.inputs(request.calibration, CALIBRATED)
    choice = {name: request.options[name] for name in WEIGHT_OPTIONS if name in request.options}
    outputs, pixels = tuple(subject.deployed.output), subject.pixels
    job = Job(str(request.precision), calibration, outputs, **choice, pixels=pixels)
    writer = writer_of(request.format)
    notes = list(writer.write(subject.deployed, path, job))
    run = writer.open_file(path, job)
    checks = compare(subject, inputs, run, request) if run else emulate(subject, inputs, request)
    refuse_failed(checks, path.name)
    notes = [*_input_notes(subject, request), *notes]
    if checks:
        notes.append(compared_on(request.pictures, len(inputs)))
    return ExportReport(
        format=request.format,
        part=part,
        precision=job.precision,
        path=str(path),
        files=sizes_of(path.parent),
        runtime=writer.runtime(),
        checks=checks,
        notes=tuple(notes),
    )


def compare(
    subject: Subject, inputs: list[np.ndarray], run: Runner, request: ExportRequest
) -> tuple[Check, ...]:
    """Runs the file on all pictures: one by one, and again at once where the batch is free."""
    expected = subject.expected(inputs)
    got = _joined([run(image) for image in inputs])
    precision, gate = str(request.precision), request.gate
    checks = compare_outputs(expected, got, precision, limit=gate)
    if request.dynamic_batch:
        together = run(np.concatenate(inputs))
        remark = f" (batch of {len(inputs)})"
        checks += compare_outputs(expected, together, precision, remark, gate)
    return checks


def emulate(
    subject: Subject, inputs: list[np.ndarray], request: ExportRequest
) -> tuple[Check, ...]:
    """For files that nothing here can run: float16 arithmetic in Keras on this CPU.

    It shows what the file itself cannot: numbers that leave the range of float16.
    """
    if request.precision != "float16":
        return ()
    got = outputs_of(subject.in_float16(), inputs)
    remark = " (float16 arithmetic in Keras, not the file)"
    return compare_outputs(subject.expected(inputs), got, "float16", remark, request.gate)


def _joined(results: list[Outputs]) -> Outputs:
    return {name: np.concatenate([result[name] for result in results]) for name in results[0]}


def _input_notes(subject: Subject, request: ExportRequest) -> list[str]:
    if request.format == "coreml":
        return []
    height, width = subject.size
    batch = "B" if request.dynamic_batch else 1
    return [PIXELS.format(batch=batch, height=height, width=width, pixels=subject.pixels)]


def _whole_model(model: keras.Model, request: ExportRequest, path: Path) -> ExportReport:
    """The vision-language model, by the module that knows how."""
    module, function = _WHOLE[request.format]
    write: Callable[..., ExportReport] = getattr(importlib.import_module(module), function)
    pictures = None
    if request.pictures is not None:
        pictures = picture_files(request.pictures, COMPARED)
    return write(
        model,
        path,
        image_size=request.image_size,
        precision=request.precision,
        pictures=pictures,
        **request.options,
    )


def learned_rounding(model: keras.Model) -> bool:
    """Whether a network comes from quantization-aware training."""
    quantization = getattr(model, "quantization", None)
    return quantization is not None and quantization["kind"] == "fake_quant"


def _trained_integers(
    model: keras.Model, part: str, request: ExportRequest, path: Path
) -> ExportReport:
    """The int8 numbers that a network was trained for, instead of its float arithmetic."""
    if request.precision not in ("float32", "int8_static") or request.dynamic_batch:
        raise ExportError(
            f"{model.name} was trained for int8 kernels, which have a fixed batch: leave the "
            "precision and the dynamic batch out"
        )
    module = importlib.import_module("dl_techniques.export.writers.litert_trained")
    report: ExportReport = module.export_quantized(
        model, path, part=part, image_size=request.image_size, pictures=request.pictures
    )
    return report


_WHOLE = {
    "litert": ("dl_techniques.export.litert_vlm.export", "export_vlm"),
    "litertlm": ("dl_techniques.export.litertlm.bundle", "export_bundle"),
}


def sizes_of(folder: Path) -> dict[str, int]:
    """Bytes of every file in a folder and below, by its path from there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
