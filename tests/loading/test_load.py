"""From names and files to models."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques.errors import ExportError, PresetError
from dl_techniques.loading.load import class_of, class_of_source, hand_over, load_source
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
        assert class_of_source(handed) == class_of_source(model) == type(model).__name__
        loaded = load_source(handed)
        assert type(loaded) is type(model) and same_weights(loaded, model)


def test_archives_are_sources_too(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path / "a.keras")
    assert class_of_source(tmp_path / "a.keras") == "FastVLM"
    assert same_weights(load_source(tmp_path / "a.keras"), model)


def test_the_shipped_preset_is_known_by_name() -> None:
    assert class_of_source("demo") == "FastVLMCausalLM"


def test_what_is_no_source_is_named(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    (tmp_path / "cut.keras").write_bytes((tmp_path / "other.keras").read_bytes()[:100])
    for name, words in (
        ("no.keras", "does not exist"),
        ("cut.keras", "cannot be read"),
        ("nothing", "no preset"),
    ):
        with pytest.raises(PresetError, match=words):
            load_source(tmp_path / name)
    with pytest.raises(PresetError, match="no whole .keras file"):
        class_of_source(tmp_path / "cut.keras")
    with pytest.raises(ExportError, match="a Sequential cannot be exported; expected.*FastVLM"):
        load_source(tmp_path / "other.keras")
    with pytest.raises(ExportError, match="a Dense cannot be exported"):
        class_of(keras.layers.Dense(1))
