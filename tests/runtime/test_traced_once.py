"""The training step is traced once on TensorFlow, and nothing else changes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.compression import distiller
from tests.models.vision.fast_vlm.small_network import make_smaller_network
from tests.models.vlm.fast_vlm.small_model import make_model

SHAPE = (16, 16, 3)
on_tensorflow = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="traces on TensorFlow"
)


def small(**options: Any) -> Any:
    return make_smaller_network(num_classes=3, input_shape=SHAPE, **options)


def pictures(count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.default_rng(0).uniform(size=(count, *SHAPE)).astype("float32")
    return images, np.arange(count) % 3


def counted(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry whenever the optimizer is asked for a step: in every trace, and never between."""
    calls: list[int] = []
    apply = model.optimizer.apply_gradients

    def apply_gradients(pairs: Any) -> Any:
        calls.append(1)
        return apply(pairs)

    monkeypatch.setattr(model.optimizer, "apply_gradients", apply_gradients)
    return calls


@on_tensorflow
def test_a_vision_network(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    calls = counted(model, monkeypatch)
    model.fit(*pictures(), batch_size=2, epochs=2, verbose=0)
    assert len(calls) == 1
    assert keras.ops.convert_to_numpy(model.optimizer.iterations) == 4


@on_tensorflow
def test_a_student(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = distiller(small(), small())
    learner.compile("adam", keras.losses.SparseCategoricalCrossentropy())
    calls = counted(learner, monkeypatch)
    learner.fit(*pictures(), batch_size=2, verbose=0)
    assert len(calls) == 1


@on_tensorflow
def test_a_language_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    model.compile(keras.optimizers.Adam(1e-3))
    calls = counted(model, monkeypatch)
    picture = np.zeros((32, 32, 3), "uint8")
    messages = [{"role": "user", "content": "why?"}, {"role": "assistant", "content": "red"}]
    model.fit([{"images": [picture], "messages": messages}] * 2, batch_size=2, verbose=0)
    assert len(calls) == 1


@on_tensorflow
def test_a_strategy_builds_in_its_own_scope() -> None:
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = small()
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(*pictures(), batch_size=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_labels_of_another_shape_are_refused_as_ever() -> None:
    model = small()
    model.compile("adam", "categorical_crossentropy")
    images, _ = pictures()
    with pytest.raises(ValueError, match="shape"):
        model.fit(images, np.zeros((4, 5)), batch_size=2, verbose=0)
