"""Precisions of LiteRT files: what is stored, what it computes, what is refused."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques.errors import CompressionError
from dl_techniques.export.litert import litert_precision
from dl_techniques.export.litert.litert_precision import (
    converter_settings,
    float16_note,
    requantize,
)
from tests.export import litert_files

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason=litert_files.NEEDS_TENSORFLOW
)
# How far a network of random weights may be off; the same as what silently fails is near 1.
LIMITS = {"float16": 0.002, "int8": 0.03, "int8_weights": 0.03, "int4_weights": 0.5}


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return litert_files.convert(tmp_path_factory.mktemp("litert") / "float.tflite")


def test_float32_and_weight_only_precisions_need_no_settings() -> None:
    for precision in ("float32", "int8_weights", "int4_weights"):
        assert converter_settings(precision, None) == {}


@pytest.mark.parametrize(
    ("precision", "calibration", "words"),
    [
        ("int9", None, "float32, float16, int8"),
        ("int8_static", None, "calibration pictures and got none"),
        ("int8_static", [], "calibration pictures and got none"),
        ("int8_static", [np.ones((2, 8, 8, 3), "float32")], r"float32\[2, 8, 8, 3\]"),
        ("int8_static", [np.ones((1, 8, 8, 3))], "float64"),
        ("int8_static", [np.full((1, 8, 8, 3), np.nan, "float32")], "not finite"),
    ],
)
def test_bad_settings_are_refused(
    precision: str, calibration: list[np.ndarray] | None, words: str
) -> None:
    with pytest.raises(CompressionError, match=words):
        converter_settings(precision, calibration)


def test_float16_note_knows_the_largest_weight() -> None:
    weights = [np.array([0.5, -3.25], "float32"), np.zeros((0,), "float32")]
    assert "the largest is 3.25" in float16_note(weights)
    for beyond in (7e4, np.inf, np.nan):
        with pytest.raises(CompressionError, match="beyond the largest float16 number, 65504"):
            float16_note([*weights, np.array([beyond], "float32")])


@on_tensorflow
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_converter_makes_weights_small(float_file: Path, tmp_path: Path, precision: str) -> None:
    made = litert_files.convert(tmp_path / "small.tflite", precision)
    assert litert_files.weight_types(made)[(64, 3, 3, 3)] == precision.upper()
    expected = litert_files.run(float_file)
    error = litert_files.relative_rms(litert_files.run(made), expected)
    assert 0 < error < LIMITS[precision]


@on_tensorflow
def test_static_int8_takes_its_ranges_from_the_calibration(
    float_file: Path, tmp_path: Path
) -> None:
    expected = litert_files.run(float_file)
    pictures = litert_files.pictures()
    errors = []
    for name, samples in (("right", pictures), ("wrong", [x / 50 for x in pictures])):
        made = litert_files.convert(tmp_path / f"{name}.tflite", "int8_static", samples)
        assert set(litert_files.weight_types(made).values()) == {"INT8"}
        errors.append(litert_files.relative_rms(litert_files.run(made), expected))
    assert errors[0] < 0.1 < 0.5 < errors[1]


@on_tensorflow
@pytest.mark.parametrize("precision", list(LIMITS))
def test_requantize_serves_all_signatures(float_file: Path, tmp_path: Path, precision: str) -> None:
    made = tmp_path / "small.tflite"
    requantize(float_file, made, precision)
    assert made.stat().st_size < float_file.stat().st_size
    for signature in ("one", "two"):
        expected = litert_files.run(float_file, signature)
        error = litert_files.relative_rms(litert_files.run(made, signature), expected)
        assert 0 < error < LIMITS[precision]
    depthwise = litert_files.weight_types(made)[(1, 3, 3, 64)]
    assert depthwise == ("FLOAT16" if precision == "float16" else "INT8")


@on_tensorflow
def test_blocks_are_closer_than_channels(float_file: Path, tmp_path: Path) -> None:
    channels, blocks = tmp_path / "channels.tflite", tmp_path / "blocks.tflite"
    keep = ("conv", "depthwise")
    requantize(float_file, channels, "int4_weights", skip=keep)
    requantize(float_file, blocks, "int4_weights", block_size=32, skip=keep)
    expected = litert_files.run(float_file)
    error = litert_files.relative_rms(litert_files.run(blocks), expected)
    assert 0 < error < litert_files.relative_rms(litert_files.run(channels), expected)


@on_tensorflow
def test_skipped_weights_stay_exact(float_file: Path, tmp_path: Path) -> None:
    made = tmp_path / "small.tflite"
    requantize(float_file, made, "int8_weights", skip=("head",))
    types = litert_files.weight_types(made)
    assert types == {(4, 64): "FLOAT32", (64, 3, 3, 3): "INT8", (1, 3, 3, 64): "INT8"}
    requantize(float_file, made, "int8_weights", skip=("head", "conv", "depthwise"))
    np.testing.assert_array_equal(litert_files.run(made), litert_files.run(float_file))


@on_tensorflow
def test_a_file_can_replace_itself_and_survives_failures(
    float_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.tflite"
    path.write_bytes(float_file.read_bytes())
    with pytest.raises(CompressionError, match=r"'neck' finds none of the .* 'head"):
        requantize(path, path, "int8", skip=("neck",))
    with pytest.raises(CompressionError, match="no regular expression"):
        requantize(path, path, "int8", skip=("(",))
    with pytest.raises(CompressionError, match="no layer can be cut into blocks of 128"):
        requantize(path, path, "int4_weights", block_size=128)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", _full_disk)
        with pytest.raises(OSError, match="No space left"):
            requantize(path, path, "int8")
    assert path.read_bytes() == float_file.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["file.tflite"]
    requantize(path, path, "int8")
    assert path.stat().st_size < float_file.stat().st_size


def _full_disk(*paths: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("precision", "block_size", "words"),
    [
        ("int8_static", None, "use float16, int8, int8_weights, int4_weights"),
        ("int8", 32, "block_size is for int4_weights"),
        ("int4_weights", 48, "one of"),
    ],
)
def test_impossible_requests_are_refused(
    tmp_path: Path, precision: str, block_size: int | None, words: str
) -> None:
    with pytest.raises(CompressionError, match=words):
        requantize(tmp_path / "a", tmp_path / "b", precision, block_size=block_size)


def test_what_is_no_litert_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="cannot be read: No such file"):
        requantize(tmp_path / "none.tflite", tmp_path / "b", "int8")
    (tmp_path / "text.tflite").write_text("not a model", encoding="utf-8")
    with pytest.raises(CompressionError, match="is no LiteRT file"):
        requantize(tmp_path / "text.tflite", tmp_path / "b", "int8")
    assert not (tmp_path / "b").exists()


def test_precisions_are_those_of_the_formats() -> None:
    from dl_techniques.export.formats import PRECISIONS

    assert PRECISIONS == litert_precision.PRECISIONS
    assert {*litert_precision.BY_CONVERTER, *litert_precision.BY_QUANTIZER} == set(PRECISIONS)
