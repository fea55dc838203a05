"""From names and files to models."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques.errors import ExportError, PresetError
from dl_techniques.loading.source import Source, class_of, find, hand_over, load
from tests.export.small_exports import small, small_mobile_one
from tests.helpers import values
from tests.models.vlm.fast_vlm.small_model import make_model


def same_weights(left: keras.Model, right: keras.Model) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(values(left), values(right), strict=True))


def test_models_arrive_as_they_were(tmp_path: Path) -> None:
    for index, model in enumerate((small(), small_mobile_one(), make_model())):
        folder = tmp_path / str(index)
        folder.mkdir()
        handed = hand_over(model, folder)
        assert find(handed).model == find(model).model == type(model).__name__
        loaded = load(handed)
        assert type(loaded) is type(model) and same_weights(loaded, model)


def test_archives_are_sources_too(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path / "a.keras")
    assert find(tmp_path / "a.keras").model == "FastVLM"
    assert same_weights(load(tmp_path / "a.keras"), model)


def test_the_shipped_preset_is_known_by_name() -> None:
    assert find("demo").model == "FastVLMCausalLM"


def test_what_is_no_source_is_named(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    (tmp_path / "cut.keras").write_bytes((tmp_path / "other.keras").read_bytes()[:100])
    for name, words in (
        ("no.keras", "does not exist"),
        ("cut.keras", "cannot be read"),
        ("nothing", "no preset"),
    ):
        with pytest.raises(PresetError, match=words):
            load(tmp_path / name)
    with pytest.raises(PresetError, match="no whole .keras file"):
        find(tmp_path / "cut.keras")
    with pytest.raises(ExportError, match="a Sequential cannot be exported; expected.*FastVLM"):
        load(tmp_path / "other.keras")
    with pytest.raises(ExportError, match="a Dense cannot be exported"):
        class_of(keras.layers.Dense(1))


def test_a_source_says_its_kind_and_bytes(tmp_path: Path) -> None:
    model = small()
    held = sum(array.nbytes for array in values(model))
    assert find(model) == Source("model", None, "FastVLM", held)
    model.save(tmp_path / "a.keras")
    model.save_to_preset(tmp_path / "preset")
    for name, kind in (("a.keras", "archive"), ("preset", "preset")):
        found = find(tmp_path / name)
        assert (found.kind, found.path) == (kind, tmp_path / name)
        assert held <= found.bytes < 2 * held + 1_000_000 and not found.answers_questions
    shipped = find("demo")
    assert shipped.kind == "preset" and shipped.answers_questions
    assert shipped.path is not None and shipped.path.is_dir() and shipped.bytes > 1_000_000


def test_files_of_other_runtimes_are_known_and_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "language.tflite").write_bytes(b"1234")
    (tmp_path / "a.litertlm").write_bytes(b"123")
    for path, kind, size in (
        (tmp_path, "litert", 4),
        (tmp_path / "a.litertlm", "litertlm", 3),
    ):
        found = find(path)
        assert (found.kind, found.model, found.bytes) == (kind, None, size)
        assert found.answers_questions
        with pytest.raises(PresetError, match=f"another runtime .{kind}.*exported from"):
            load(path)
