"""The steps that train, on pictures that are easy to tell apart."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.compression.optimization.recipe import Recipe
from dl_techniques.compression.optimization.recipe_parts import (
    Distil,
    Prune,
    QuantizationAware,
    Training,
)
from dl_techniques.compression.optimization.steps import Lesson, gives_logits, optimizer, run_steps
from dl_techniques.data.labelled import Batches, read_labelled
from dl_techniques.data.preprocessing import Preprocessing
from dl_techniques.errors import CompressionError
from tests.compression.class_folders import COLOURS, write_classes
from tests.helpers import numbers, values
from tests.models.vision.fast_vlm.small_network import make_smaller_network

pytestmark = pytest.mark.once

TRAINING = Training(batch_size=8, learning_rate=2e-3, augment=False)


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    preprocessing = Preprocessing(size=16)
    folder = write_classes(tmp_path_factory.mktemp("colours"), side=16)
    return Lesson(*read_labelled(folder, preprocessing), preprocessing, TRAINING)


def network(**options: Any) -> Any:
    return make_smaller_network(num_classes=len(COLOURS), input_shape=(16, 16, 3), **options)


@pytest.mark.slow_on_jax
def test_pruning_and_rounding_follow_each_other(lesson: Lesson) -> None:
    model = network()
    model.reparameterize(fold=True)
    before = values(model)
    recipe = Recipe(
        prune=Prune(0.5, ("hidden",), importance="l1", epochs=2),
        quantization_aware=QuantizationAware(skip=("head",)),
        training=TRAINING,
    )
    said: list[str] = []
    small, steps = run_steps(model, recipe, lesson, said.append)
    assert [step.name for step in steps] == ["prune", "quantization_aware"]
    assert said[0] == "prune: 2 epochs on 24 pictures"
    assert small.stages[0].blocks[0].conv_ffn.hidden_dim == 8
    assert small.quantization["kind"] == "fake_quant"
    assert steps[-1].accuracy == lesson.accuracy_of(small)
    for now, then in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_training_learns(lesson: Lesson) -> None:
    quick = Training(batch_size=8, learning_rate=2e-2, augment=False)
    model = network(layer_scale_init=0.1)
    dataclasses.replace(lesson, training=quick).fit(model, 16, "alone")
    assert lesson.accuracy_of(model) == 1.0
    assert numbers(model.optimizer.iterations) == 48


@pytest.mark.full
def test_a_student_of_another_variant_learns_from_the_source(lesson: Lesson) -> None:
    recipe = Recipe(distil=Distil(student="nano", features=True, epochs=2), training=TRAINING)
    student, steps = run_steps(network(), recipe, lesson, lambda line: None)
    assert student.config.embed_dims == (24, 48, 96)
    assert student.num_classes == len(COLOURS)
    assert steps[0].parameters == student.count_params()


def test_a_failed_training_is_told(lesson: Lesson) -> None:
    wild = dataclasses.replace(lesson, training=Training(batch_size=8, learning_rate=1e30))
    with pytest.raises(CompressionError, match="training failed: the loss became"):
        wild.fit(network(), 3, "wild")


def test_the_rate_rises_and_falls() -> None:
    schedule = optimizer(40, 0.1)._learning_rate
    rates = [float(keras.ops.convert_to_numpy(schedule(step))) for step in (0, 2, 20, 40)]
    assert rates[0] == pytest.approx(0.005)
    assert rates[1] == pytest.approx(0.1)
    assert rates[1] > rates[2] > rates[3] == pytest.approx(0.0, abs=1e-6)


def test_probabilities_are_told_from_logits() -> None:
    assert gives_logits(network())
    assert not gives_logits(network(classifier_activation="softmax"))


def test_only_networks_with_known_channels_are_pruned(lesson: Lesson, tmp_path: Path) -> None:
    from tests.export.small_exports import small_mobile_one

    with pytest.raises(CompressionError, match="as FastVLM; got a MobileOne"):
        run_steps(
            small_mobile_one(), Recipe(prune=Prune(), training=TRAINING), lesson, lambda line: None
        )


@pytest.mark.slow_on_jax
def test_steps_that_were_killed_go_on_where_they_were(
    lesson: Lesson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(
        prune=Prune(0.5, ("hidden",), epochs=1),
        quantization_aware=QuantizationAware(skip=("head",)),
        training=dataclasses.replace(TRAINING, augment=True),
    )
    model = network(drop_path_rate=0.3)
    whole, _ = run_steps(model, recipe, lesson, lambda line: None)
    kept = dataclasses.replace(lesson, folder=tmp_path)
    batch, asked = Batches.batch, []

    def killed(self: Batches, epoch: int, index: int) -> Any:
        asked.append(index)
        if (tmp_path / "prune-1" / "finished").is_dir() and index == 2:
            raise KeyboardInterrupt
        return batch(self, epoch, index)

    monkeypatch.setattr(Batches, "batch", killed)
    with pytest.raises(KeyboardInterrupt):
        run_steps(model, recipe, kept, lambda line: None)
    monkeypatch.setattr(Batches, "batch", batch)
    assert not (tmp_path / "quantization_aware" / "finished").exists()
    resumed, _ = run_steps(model, recipe, kept, lambda line: None)
    for ours, theirs in zip(values(resumed), values(whole), strict=True):
        np.testing.assert_array_equal(ours, theirs)
