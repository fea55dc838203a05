"""optimize, end to end: files, figures, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from dl_techniques.compression import Recipe, optimize
from dl_techniques.compression.optimization.classifier_files import side_of
from dl_techniques.data.labelled import read_labelled
from dl_techniques.errors import CompressionError, DLTechniquesError, ExportError
from dl_techniques.training import is_finished
from tests.compression.class_folders import COLOURS, write_classes
from tests.export.litert_files import NEEDS_TENSORFLOW
from tests.helpers import numbers
from tests.models.vision.fast_vlm.small_network import make_network, make_smaller_network

on_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason=NEEDS_TENSORFLOW)
INT8 = Recipe.from_dict({"quantize": {"precision": "int8"}})
STATISTICS = {"size": 32, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classes(tmp_path_factory.mktemp("colours"))


def network(**options: Any) -> Any:
    wide = {"embed_dims": (16, 32, 64), "num_classes": len(COLOURS), "preprocessing": STATISTICS}
    return make_network(**{**wide, **options})


@on_tensorflow
def test_a_classifier_becomes_small_and_is_measured(colours: Path, tmp_path: Path) -> None:
    model, output = network(), tmp_path / "small.tflite"
    said: list[str] = []
    report = optimize(model, output, INT8, colours, say=said.append)
    assert report.after.bytes == output.stat().st_size < 0.5 * report.before.bytes
    assert report.pictures == 6 and report.steps == ()
    # The float32 file answers as Keras does, with the statistics inside.
    _, held_out = read_labelled(colours, model.preprocessing)
    answers = numbers(model(held_out.inputs(model.preprocessing))).argmax(-1)
    assert report.before.accuracy == np.mean(answers == held_out.labels)
    assert report.before.milliseconds is not None and report.before.milliseconds > 0
    assert json.loads(json.dumps(report.to_json()))["recipe"]["quantize"]["precision"] == "int8"
    assert [p.name for p in tmp_path.iterdir()] == ["small.tflite"]
    assert said[0].startswith("reading") and said[-1] == f"writing and checking {output}"


@on_tensorflow
@pytest.mark.full
def test_all_steps_follow_each_other(colours: Path, tmp_path: Path) -> None:
    recipe = Recipe.from_dict(
        {
            "prune": {"targets": ["hidden"], "importance": "taylor", "epochs": 1},
            "distil": {"features": True, "epochs": 1},
            "quantization_aware": {"epochs": 1},
            "training": {"batch_size": 8},
        }
    )
    work = tmp_path / "work"
    report = optimize(network(), tmp_path / "small.tflite", recipe, colours, work=work)
    assert [step.name for step in report.steps] == ["prune", "distil", "quantization_aware"]
    assert all(is_finished(work / name) for name in ("prune-1", "distil", "quantization_aware"))
    assert report.after.parameters < report.before.parameters
    assert report.after.bytes < 0.5 * report.before.bytes
    assert any("int8 kernels" in note for note in report.notes)
    kept = keras.saving.load_model(tmp_path / "small.keras")
    assert kept.quantization["kind"] == "fake_quant"


def test_without_data_nothing_trains(tmp_path: Path) -> None:
    for part in ({"quantization_aware": {}}, {"quantize": {"precision": "int8_static"}}):
        with pytest.raises(CompressionError, match="needs pictures .* --data"):
            optimize(make_smaller_network(), tmp_path / "a.tflite", Recipe.from_dict(part))


def test_data_of_other_classes_are_refused(colours: Path, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="has 3 class folders, fast_vlm has 5 classes"):
        optimize(make_smaller_network(), tmp_path / "a.tflite", INT8, colours)
    assert not list(tmp_path.iterdir())


def test_what_is_no_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="has no classes"):
        optimize(make_smaller_network(include_top=False), tmp_path / "a.tflite", INT8)
    bundle = Recipe.from_dict({"export": {"format": "litertlm"}})
    with pytest.raises(CompressionError, match="a classifier is written as litert"):
        optimize(make_smaller_network(), tmp_path / "a.tflite", bundle)


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    there = tmp_path / "there.tflite"
    there.write_text("older", encoding="utf-8")
    for path, words in ((there, "exists already"), (tmp_path / "a.bin", "must end in .tflite")):
        with pytest.raises(ExportError, match=words):
            optimize(make_smaller_network(), path, INT8)
    assert there.read_text(encoding="utf-8") == "older"


def test_what_training_makes_never_takes_the_place_of_its_source(
    colours: Path, tmp_path: Path
) -> None:
    source = tmp_path / "pets.keras"
    network().save(source)
    before = source.read_bytes()
    recipe = Recipe.from_dict({"quantization_aware": {"epochs": 1}})
    output = tmp_path / "pets.tflite"
    for name in (source, str(source)):
        with pytest.raises(CompressionError, match="the model to start from; give the output"):
            optimize(name, output, recipe, colours, overwrite=True)
    with pytest.raises(ExportError, match="pets.keras exists already"):
        optimize(network(), output, recipe, colours)
    assert source.read_bytes() == before and list(tmp_path.iterdir()) == [source]


def test_the_size_of_the_pictures() -> None:
    free = make_smaller_network(input_shape=(None, None, 3), preprocessing={"size": 48})
    assert (side_of(free, None), side_of(free, 64)) == (48, 64)
    assert side_of(make_smaller_network(), None) == 32
    with pytest.raises(CompressionError, match="takes 32 x 32 pixels, got export.image_size 64"):
        side_of(make_smaller_network(), 64)
    with pytest.raises(CompressionError, match="reads square pictures"):
        side_of(make_smaller_network(input_shape=(32, 64, 3)), None)


def test_vision_language_models_are_not_trained(tmp_path: Path) -> None:
    from tests.models.vlm.fast_vlm.small_model import make_model

    recipe = Recipe.from_dict({"prune": {}})
    with pytest.raises(CompressionError, match="take classifiers; of a vision-language model"):
        optimize(make_model(), tmp_path / "vlm", recipe)


@on_tensorflow
@pytest.mark.full
def test_the_parts_of_a_vision_language_model_become_small(tmp_path: Path) -> None:
    from tests.export.litert_vlm.small_export import make_model

    report = optimize(make_model(), tmp_path / "vlm", INT8)
    files = sum(path.stat().st_size for path in (tmp_path / "vlm").iterdir())
    assert report.after.bytes == files < report.before.bytes
    assert (report.after.accuracy, report.after.milliseconds) == (None, None)
    assert any("greedy tokens" in note for note in report.notes)
    assert any("name a folder of question sets" in note for note in report.notes)


@on_tensorflow
@pytest.mark.full
def test_a_vision_language_model_is_asked_before_and_after(tmp_path: Path) -> None:
    """The right answers of one set are the model's own, those of the other are not."""
    from tests.export.litert_vlm.small_export import make_model

    model = make_model()
    model.max_new_tokens = 4
    write_questions(tmp_path / "sets", model)
    float32 = Recipe.from_dict({})
    report = optimize(model, tmp_path / "vlm", float32, tmp_path / "sets")
    assert report.pictures == 6
    assert (report.before.accuracy, report.after.accuracy) == (0.5, 0.5)
    assert report.before.milliseconds and report.after.milliseconds
    assert "right: 100.0 % right before, 100.0 % after, of 3 questions" in report.notes
    assert "wrong: 0.0 % right before, 0.0 % after, of 3 questions" in report.notes
    with pytest.raises(DLTechniquesError, match="records.jsonl"):
        optimize(model, tmp_path / "again", float32, tmp_path / "vlm")


def write_questions(folder: Path, model: Any) -> None:
    """A set whose answers are what the model says in Keras, and a set that has other answers."""
    rng = np.random.default_rng(3)
    right, wrong = [], []
    (folder / "right").mkdir(parents=True)
    (folder / "wrong").mkdir()
    for number in range(3):
        name = f"{number}.png"
        picture = rng.integers(0, 256, (40, 40, 3), "uint8")
        for into in ("right", "wrong"):
            Image.fromarray(picture).save(folder / into / name)
        prompt = {"prompts": "what is this?", "images": picture}
        record = {"image": name, "question": "what is this?"}
        answer = model.generate(prompt)
        right.append({**record, "answer": answer})
        wrong.append({**record, "answer": f"not {answer}"})
    for into, records in (("right", right), ("wrong", wrong)):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (folder / into / "records.jsonl").write_text(lines, encoding="utf-8")
