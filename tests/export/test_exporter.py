"""`export_model`: whole or not at all, the source unchanged, the right process."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.errors import ExportError, MissingExtraError
from dl_techniques.export import ExportReport, export_model, exporter, formats, perform, worker
from dl_techniques.export.writers.job import Job, Runner
from tests.export.small_exports import OWN_FORMAT, names_in, photos, tiny
from tests.helpers import values
from tests.models.vlm.fast_vlm.small_model import make_model

OWN = OWN_FORMAT.get(keras.backend.backend())
needs_own = pytest.mark.skipif(OWN is None, reason="no format is written on this backend")


class Writer:
    """Writes a folder or file, and runs Keras with an error of its own making."""

    def __init__(self, factor: float = 1.0, failure: BaseException | None = None) -> None:
        self.factor, self.failure = factor, failure
        self.network: Any = None

    def write(self, network: Any, path: Path, job: Job) -> Sequence[str]:
        self.network = network
        if OWN == "saved_model":
            path.mkdir()
            path = path / "saved_model.pb"
        path.write_bytes(b"half")
        if self.failure is not None:
            raise self.failure
        return ("a note",)

    def open_file(self, path: Path, job: Job) -> Runner:
        def run(pictures: np.ndarray) -> dict[str, np.ndarray]:
            outputs = self.network(pictures, training=False)
            return {
                name: self.factor * keras.ops.convert_to_numpy(value)
                for name, value in outputs.items()
            }

        return run

    def runtime(self) -> str:
        return "Keras itself"


def target_in(folder: Path) -> Path:
    return folder / f"model{formats.FORMATS[str(OWN)].suffix}"


def export_with(writer: Writer, monkeypatch: pytest.MonkeyPatch, *args: Any, **more: Any) -> Any:
    monkeypatch.setattr(perform, "writer_of", lambda name: writer)
    return export_model(*args, **more)


@needs_own
def test_a_passed_file_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, target = tiny(), target_in(tmp_path)
    before = values(model)
    report = export_with(Writer(), monkeypatch, model, target, OWN, dynamic_batch=True)
    assert report.passed and report.path == str(target) and target.exists()
    assert names_in(tmp_path) == [target.name] and sum(report.files.values()) == 4
    assert [check.what for check in report.checks] == ["logits", "logits (batch of 8)"]
    assert any("8 photographs that come" in note for note in report.notes)
    assert "a note" in report.notes
    for now, then in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


@needs_own
@pytest.mark.parametrize(
    ("writer", "error", "words"),
    [
        (Writer(1.001), ExportError, "does not compute what Keras computes"),
        (Writer(float("nan")), ExportError, "does not compute"),
        (
            Writer(failure=OSError(errno.ENOSPC, "No space left on device")),
            ExportError,
            "No space left on device.*make room",
        ),
        (Writer(failure=KeyboardInterrupt()), KeyboardInterrupt, "^$"),
    ],
)
def test_nothing_else_is_kept_and_the_old_file_stays(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    writer: Writer,
    error: type[BaseException],
    words: str,
) -> None:
    target = target_in(tmp_path)
    kept = target / "saved_model.pb" if OWN == "saved_model" else target
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("old")
    with pytest.raises(error, match=words):
        export_with(writer, monkeypatch, tiny(), target, OWN, overwrite=True)
    assert kept.read_text() == "old" and names_in(tmp_path) == [target.name]


@needs_own
def test_the_gate_and_the_pictures_can_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = export_with(
        Writer(1.001),
        monkeypatch,
        tiny(),
        target_in(tmp_path),
        OWN,
        pictures=photos(tmp_path / "photos"),
        gate=0.01,
    )
    (check,) = report.checks
    assert check.samples == 2 and check.relative == pytest.approx(0.001, rel=0.01)
    assert not any("drawn" in note for note in report.notes)


@pytest.mark.parametrize("by_name", [False, True])
def test_other_backends_work_in_a_process_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_name: bool
) -> None:
    seen: list[Any] = []

    def instead(backend: str, source: Any, request: Any, path: Path) -> ExportReport:
        seen.append((backend, Path(source).is_dir(), request))
        path.write_bytes(b"file")
        return ExportReport("x", "encoder", "float32", str(path), {}, None, ())

    monkeypatch.setattr(worker, "run_in_worker", instead)
    other = "torch" if keras.backend.backend() != "torch" else "onnx"
    suffix = formats.FORMATS[other].suffix
    source: Any = tiny()
    if by_name:
        source.save_to_preset(tmp_path / "preset")
        source = str(tmp_path / "preset")
    report = export_model(source, tmp_path / f"m{suffix}", other, image_size=48)
    ((backend, is_folder, request),) = seen
    assert backend == formats.FORMATS[other].backend and is_folder and request.image_size == 48
    assert report.path == str(tmp_path / f"m{suffix}") and Path(report.path).is_file()


def test_bad_input_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    model = tiny()
    cases: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((model, "m.onnx", "onx"), {}, "did you mean 'onnx'"),
        ((model, "m.onnx", "onnx"), {"precision": "int8"}, "it can float32, float16"),
        ((model, "m.tflite", "onnx"), {}, "must end in .onnx"),
        ((model, "m.onnx", "onnx"), {"pictures": tmp_path / "empty"}, "holds no pictures"),
        ((model, "m.onnx", "onnx"), {"pictures": tmp_path / "none"}, "is no folder"),
        (
            (model, "m.tflite", "litert"),
            {"precision": "int8_static", "calibration": tmp_path / "empty"},
            "holds no pictures",
        ),
        ((model, "m.onnx", "onnx"), {"cache_length": 9}, "no option 'cache_length'"),
        ((make_model(), "m.tflite", "litert"), {}, "a folder of files"),
    ]
    for (source, name, form), options, words in cases:
        with pytest.raises(ExportError, match=words):
            export_model(source, tmp_path / name, form, **options)
    monkeypatch.setattr(formats, "installed", lambda module: False)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[onnx\]'"):
        export_model(model, tmp_path / "m.onnx", "onnx")
    assert names_in(tmp_path) == ["empty"]


def test_the_public_names() -> None:
    import dl_techniques.export as package

    assert package.export_model is exporter.export_model
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="one backend that writes nothing")
def test_a_model_on_jax_becomes_a_litert_file(tmp_path: Path) -> None:
    report = export_model(tiny(), tmp_path / "m.tflite", "litert")
    assert report.runtime is not None and report.runtime.startswith("ai-edge-litert")
    assert report.checks[0].relative is not None and report.checks[0].relative < 1e-4
    assert names_in(tmp_path) == ["m.tflite"]
    with pytest.raises(ExportError, match="cannot take pictures of 2 pixels"):
        export_model(tiny(), tmp_path / "n.tflite", "litert", image_size=2)
    assert names_in(tmp_path) == ["m.tflite"]
