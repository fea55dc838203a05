"""`export_bundle`: the engine's words are Keras', or nothing is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.errors import ExportError
from dl_techniques.export.litert_vlm.parts import write_parts
from dl_techniques.export.litertlm import bundle as module
from dl_techniques.export.litertlm import export_bundle
from dl_techniques.models.vlm.fast_vlm import FastVLMCausalLM
from tests.export.litertlm.small_bundle import (
    CACHE,
    LENGTHS,
    LIMIT,
    QUESTIONS,
    needs_tensorflow,
    small_bundle,
    talkative_model,
)
from tests.models.vlm.fast_vlm.small_model import make_backbone, make_model, pictures

SMALL: dict[str, Any] = {"prefill_lengths": LENGTHS, "cache_length": CACHE}


@needs_tensorflow
def test_the_greedy_texts_are_those_of_keras() -> None:
    report = small_bundle().report
    assert report.passed
    whats = {check.what: check for check in report.checks}
    assert whats["greedy text"].samples == 3 * len(QUESTIONS)
    assert whats["greedy text"].agreement == 1.0
    assert whats["prompt tokens"].agreement == 1.0
    assert whats["questions whose answer depends on the picture"].samples == len(QUESTIONS)
    assert report.files == {"small.litertlm": small_bundle().path.stat().st_size}
    assert str(report.runtime).startswith("litert-lm ")
    assert any("table of embeddings is in the file once" in note for note in report.notes)


@needs_tensorflow
def test_int8_is_smaller_and_sees_the_pictures(tmp_path: Path) -> None:
    """Random weights leave little between the first and the second token; three are compared."""
    path = tmp_path / "int8.litertlm"
    report = export_bundle(
        small_bundle().model,
        path,
        **SMALL,
        precision="int8",
        pictures=pictures(3),
        question=QUESTIONS,
        max_new_tokens=3,
    )
    assert report.passed and len(report.checks) == 3
    assert path.stat().st_size < 0.75 * small_bundle().path.stat().st_size
    assert any("table of embeddings is in the file once" in note for note in report.notes)


@needs_tensorflow
@pytest.mark.full
def test_the_shipped_model(tmp_path: Path) -> None:
    model = FastVLMCausalLM.from_preset("demo")
    folder = Path(__file__).parents[3] / "examples"
    names = ("scene.png", "emoji.png", "word.png", "dress.jpg")
    for precision in ("float32", "int8"):
        report = export_bundle(
            model,
            tmp_path / f"{precision}.litertlm",
            precision=precision,
            pictures=[folder / name for name in names],
            question=("what is this?", "what word is this?", "how many cats are there?"),
        )
        assert report.passed and len(report.checks) == 3
        if precision == "float32":
            assert report.checks[1].agreement == 1.0


@needs_tensorflow
@pytest.mark.full
def test_pictures_of_another_size(tmp_path: Path) -> None:
    model = FastVLMCausalLM.from_preset("demo")
    report = export_bundle(model, tmp_path / "m.litertlm", image_size=96)
    assert report.passed


@needs_tensorflow
def test_a_bundle_that_answers_otherwise_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts are those of another model: the real engine answers, and not as Keras does."""
    path = tmp_path / "m.litertlm"
    path.write_bytes(b"the old one")
    other = talkative_model()
    rng = np.random.default_rng(9)
    for weight in other.backbone.projector.weights:
        weight.assign(rng.normal(0, 1, weight.shape))

    def write_other(model: Any, folder: Any, **more: Any) -> dict[str, Path]:
        return write_parts(other, folder, **more)

    monkeypatch.setattr(module, "write_parts", write_other)
    with pytest.raises(ExportError, match="m.litertlm does not compute what Keras computes"):
        export_bundle(
            small_bundle().model,
            path,
            **SMALL,
            pictures=pictures(2),
            question=QUESTIONS,
            max_new_tokens=LIMIT,
        )
    assert path.read_bytes() == b"the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["m.litertlm"]


@needs_tensorflow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "int4_weights"}, "a bundle cannot be written in 'int4_weights'"),
        ({"cache_length": 200}, "cache_length=200 is no multiple of the prefill length 16"),
        ({"cache_length": 32}, "leaves no room for an answer"),
        ({"image_size": 64}, "takes pictures of 32 x 32 pixels only"),
        ({"question": ()}, "no question was given"),
    ],
)
def test_wrong_requests_are_refused_before_the_work(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        export_bundle(small_bundle().model, tmp_path / "m.litertlm", **{**SMALL, **arguments})
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("litert_lm")
    with pytest.raises(ExportError, match="this model has no preprocessor"):
        export_bundle(FastVLMCausalLM(make_backbone()), tmp_path / "m.litertlm")


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="about the other backends")
def test_other_backends_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("litert_lm")
    with pytest.raises(ExportError, match="TensorFlow"):
        export_bundle(make_model(), tmp_path / "m.litertlm", **SMALL)
    assert not list(tmp_path.iterdir())
