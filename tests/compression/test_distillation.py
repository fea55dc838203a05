"""A student learns from a teacher that stays as it is, and is an ordinary model afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques import FastVLM
from dl_techniques.compression.distillation import TeacherView, distiller, relative_squared_error
from dl_techniques.errors import CompressionError
from tests.compression.dead_channels import make_one_stage_network
from tests.helpers import TOLERANCE, Array, numbers, random_array, randomize, relative_difference
from tests.models.vision.fast_vlm.small_network import pictures

CLASSES = 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
LABELS = np.arange(12) % CLASSES


def make_model(width: int, side: int | None = 8, seed: int = 0, **head: Any) -> keras.Model:
    """Convolution and norm (layer "features"), pooling, classifier."""
    image = keras.Input((side, side, 3))
    x = keras.layers.Conv2D(width, 3, 2, padding="same", use_bias=False)(image)
    x = keras.layers.BatchNormalization(name="features")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    model = keras.Model(image, keras.layers.Dense(CLASSES, name="classes", **head)(x))
    randomize(model, seed)
    return model


def examples() -> tuple[Array, Array]:
    """12 pictures of three classes that differ in colour."""
    x = random_array(12, 8, 8, 3) * 0.3
    x[np.arange(12), :, :, LABELS] += 1.0
    return x, LABELS


def copies(model: keras.Model) -> list[Array]:
    """Copies of all weights."""
    return [np.array(keras.ops.convert_to_numpy(v)) for v in model.weights]


def same(left: list[Array], right: list[Array]) -> bool:
    """Whether all arrays are equal."""
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def softened(logits: Array, temperature: float) -> Array:
    """Softmax of logits / T."""
    weights = np.exp(logits / temperature)
    return weights / weights.sum(1, keepdims=True)


def test_the_student_learns_and_the_teacher_stays(tmp_path: Path) -> None:
    x, y = examples()
    student, teacher = make_model(4), make_model(8, seed=1)
    before = copies(teacher)
    pair = distiller(student, teacher, temperature=2.0, features=[("features", "features")])
    pair.compile(keras.optimizers.Adam(0.05), LOSS, metrics=["accuracy"])
    losses = pair.fit(x, y, batch_size=12, epochs=20, verbose=0).history
    for name in ("student_loss", "distillation_loss", "total_loss"):
        assert losses[name][-1] < 0.6 * losses[name][0]
    assert same(copies(teacher), before) and not teacher.trainable_variables
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(numbers(loaded(x)), numbers(student(x)))
    assert [layer.name for layer in student.layers] == [layer.name for layer in loaded.layers]
    assert len(student.layers) == 6


def test_the_losses_are_what_is_written() -> None:
    x, y = examples()
    student, teacher = make_model(4), make_model(4, seed=1)
    pair = distiller(
        student, teacher, temperature=3.0, alpha=0.25, features=[("features", "features")],
        feature_weight=2.0,
    )  # fmt: skip
    pair.compile("sgd", LOSS)
    projection = pair._student_feature_extractor.get_layer("project_features")
    before = copies(student)
    found = pair.evaluate(x, y, batch_size=12, verbose=0, return_dict=True)
    assert same(copies(student), before)
    ours, theirs = numbers(student(x)), numbers(teacher(x))
    p, q = softened(theirs, 3.0), softened(ours, 3.0)
    soft = 9 * np.mean(np.sum(p * np.log(p / q), 1))
    maps = [
        numbers(keras.Model(m.input, m.get_layer("features").output)(x)) for m in (student, teacher)
    ]
    projected = maps[0] @ numbers(projection.kernel) + numbers(projection.bias)
    relative = np.mean((projected - maps[1]) ** 2) / np.mean(maps[1] ** 2)
    hard = -np.mean(np.log(softened(ours, 1.0))[np.arange(12), y])
    assert found["student_loss"] == pytest.approx(hard, rel=1e-4)
    assert found["distillation_loss"] == pytest.approx(soft + 2.0 * relative, rel=1e-4)
    assert found["total_loss"] == pytest.approx(
        0.75 * hard + 0.25 * (soft + 2 * relative), rel=1e-4
    )


def test_one_step_moves_the_norms_once() -> None:
    """A second pass of the student would move the statistics twice."""
    x, y = examples()
    student, alone = make_model(4), make_model(4)
    pair = distiller(student, make_model(8, seed=1), features=[("features", "features")])
    for model in (pair, alone):
        model.compile(keras.optimizers.SGD(0.0), LOSS)
        model.train_on_batch(x, y)
    assert relative_difference(
        student.get_layer("features").moving_mean, alone.get_layer("features").moving_mean
    ) < 1e-5  # fmt: skip


@pytest.mark.once
def test_stages_of_two_networks_of_the_family() -> None:
    student, teacher = make_one_stage_network(), make_one_stage_network(embed_dims=(16,))
    teacher.reparameterize(fold=True)
    pair = distiller(student, teacher, features=True)
    assert len(pair.trainable_variables) == len(student.trainable_variables) + 2
    pair.compile(keras.optimizers.Adam(0.01), LOSS)
    x, y = pictures(4), np.arange(4) % 5
    before, first = copies(teacher), pair.train_on_batch(x, y)
    for _ in range(3):
        last = pair.train_on_batch(x, y)
    assert np.mean(last) < np.mean(first) and same(copies(teacher), before)
    expected = numbers(student(x))
    student.reparameterize(fold=True)
    assert relative_difference(student(x), expected) < TOLERANCE
    clone = FastVLM.from_config(student.get_config())
    clone.set_weights(student.get_weights())
    np.testing.assert_array_equal(numbers(clone(x)), numbers(student(x)))


@pytest.mark.once
def test_a_teacher_of_another_size_and_other_pixels_sees_its_own() -> None:
    pixels = {"size": 64, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.5)}
    student = make_one_stage_network()
    teacher = make_one_stage_network(input_shape=(64, 64, 3), preprocessing=pixels)
    pair = distiller(student, teacher, features=[(1, 1), (0, "stem")])
    grey = np.full((2, 32, 32, 3), 0.6, "float32")
    seen = (np.full((2, 64, 64, 3), 0.6) - pixels["mean"]) / pixels["std"]
    features = pair._extract_all_teacher_features(keras.ops.convert_to_tensor(grey))
    assert relative_difference(features["final_output"], teacher(seen.astype("float32"))) < 1e-5
    assert tuple(features["stage_1"].shape) == (2, 8, 8, 8)


def test_a_view_is_there_only_where_it_is_needed() -> None:
    assert TeacherView.between(make_model(4), make_model(4)) is None
    view = TeacherView.between(make_model(4), make_model(4, side=16))
    assert view is not None and view.size == (16, 16)
    assert TeacherView.between(make_model(4), make_model(4, side=None)) is None


def test_the_relative_error_has_no_scale() -> None:
    target, output = random_array(2, 3, seed=1), random_array(2, 3, seed=2)
    error = numbers(relative_squared_error(target, output))
    assert error == pytest.approx(np.mean((output - target) ** 2) / np.mean(target**2), rel=1e-4)
    scaled = numbers(relative_squared_error(target * 50, output * 50))
    assert scaled == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize(
    ("head", "arguments", "message"),
    [
        ({"activation": "softmax"}, {}, "ends in a softmax; distillation needs logits"),
        ({}, {"alpha": 1.5}, "alpha is 1.5"),
        ({}, {"temperature": 0.0}, "temperature 0.0"),
        ({}, {"features": True}, "has no extract_features; name the layers"),
        ({}, {"features": [("features", "fetures")]}, "no feature 'fetures'; it has .*features"),
    ],
)
def test_requests_that_cannot_be(head: Any, arguments: Any, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        distiller(make_model(4), make_model(8, **head), **arguments)


def test_models_that_do_not_fit() -> None:
    image = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    other = keras.Model(image, keras.layers.Dense(7)(pooled), name="seven")
    with pytest.raises(CompressionError, match=r"seven cannot teach .*\(None, 7\)"):
        distiller(make_model(4), other)
    with pytest.raises(CompressionError, match="expected logits .* build it with its classifier"):
        distiller(make_model(4), keras.Model(image, keras.layers.ReLU()(image)))
    with pytest.raises(CompressionError, match="the teacher is a list"):
        distiller(make_model(4), [1])  # type: ignore[arg-type]
    with pytest.raises(CompressionError, match=r"index|no feature 9; it has"):
        network = make_one_stage_network()
        distiller(network, network, features=[(9, 0)])


def test_a_saved_distiller_goes_on_where_it_stopped(tmp_path: Path) -> None:
    student, teacher = make_one_stage_network(), make_one_stage_network()
    pair = distiller(student, teacher, features=True)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pair.compile(keras.optimizers.Adam(1e-3), loss)
    labels = np.arange(2)
    pair.fit(pictures(), labels, verbose=0)
    pair.save(tmp_path / "pair.keras")
    loaded = keras.models.load_model(tmp_path / "pair.keras")
    assert int(loaded.optimizer.iterations) == 1
    assert not any(v.trainable for v in loaded.teacher.variables)
    going, resumed = (model.fit(pictures(), labels, verbose=0) for model in (pair, loaded))
    for name, values in going.history.items():
        np.testing.assert_allclose(resumed.history[name], values, rtol=1e-4)
