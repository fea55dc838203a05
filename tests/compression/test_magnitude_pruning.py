"""Zeros come by schedule, stay while training, and are there after saving and fusing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques import FastVLM
from dl_techniques.compression.magnitude_pruning import MagnitudePruning, sparsity_report
from dl_techniques.compression.pruning_schedule import CubicSchedule
from dl_techniques.errors import CompressionError
from dl_techniques.layers.mobile_one_block import MobileOneBlock
from dl_techniques.training import Stage
from tests.helpers import TOLERANCE, numbers, random_array, randomize, relative_difference
from tests.models.vision.fast_vlm.small_network import make_network, pictures

CHANNELS = 16


def make_model(num_conv_branches: int = 2) -> keras.Model:
    """A 3x3 and a 1x1 block of several branches, and a classifier."""
    image = keras.Input((8, 8, 3))
    options: dict[str, Any] = {"num_conv_branches": num_conv_branches}
    x = MobileOneBlock(CHANNELS, 3, 2, name="first", **options)(image)
    x = MobileOneBlock(CHANNELS, 1, name="second", **options)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(12, name="middle")(x)
    model = keras.Model(image, keras.layers.Dense(4, name="head")(x))
    randomize(model)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def train(model: keras.Model, callback: keras.callbacks.Callback, epochs: int = 2) -> None:
    """Four steps an epoch."""
    x, y = random_array(16, 8, 8, 3), np.arange(16) % 4
    model.fit(x, y, batch_size=4, epochs=epochs, callbacks=[callback], verbose=0)


def sparsities(model: keras.Model) -> dict[str, float]:
    """Last part of a layer's path -> sparsity of its fused kernel."""
    return {layer.layer.split("/")[-1]: layer.sparsity for layer in sparsity_report(model)}


class Zeros(keras.callbacks.Callback):
    """Notes the sparsity of one kernel and where its zeros are, after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[float] = []
        self.where: list[Any] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Comes after the pruning of the same step."""
        kernel = numbers(self.model.get_layer("middle").kernel)
        self.counts.append(float(np.mean(kernel == 0)))
        self.where.append(kernel == 0)


def test_the_fused_kernels_reach_the_sparsity_and_keep_it() -> None:
    model = make_model()
    zeros, pruning = Zeros(), MagnitudePruning(CubicSchedule(0.75, 0, 6), frequency=2)
    x, y = random_array(16, 8, 8, 3), np.arange(16) % 4
    model.fit(x, y, batch_size=4, epochs=2, callbacks=[pruning, zeros], verbose=0)
    wanted = [0.0, 0.5278, 0.5278, 0.7222, 0.7222, 0.75, 0.75, 0.75]
    np.testing.assert_allclose(zeros.counts, wanted, atol=0.006)
    assert all(
        np.all(now[before]) for before, now in zip(zeros.where, zeros.where[1:], strict=False)
    )
    found = sparsities(model)
    assert found.pop("head") == 0
    assert list(found) == ["first", "second", "middle"]
    np.testing.assert_allclose(list(found.values()), 0.75, atol=0.006)


def test_zeros_survive_saving_fusing_and_further_training(tmp_path: Path) -> None:
    model = make_model()
    train(model, MagnitudePruning(0.5, frequency=1))
    model.save(tmp_path / "sparse.keras")
    loaded = keras.saving.load_model(tmp_path / "sparse.keras")
    assert sparsities(loaded) == sparsities(model)
    train(loaded, MagnitudePruning(CubicSchedule(0.1, 0, 100)), epochs=1)
    assert min(v for k, v in sparsities(loaded).items() if k != "head") >= 0.49
    x = random_array(2, 8, 8, 3)
    before, expected = sparsities(loaded), numbers(loaded(x))
    for name in ("first", "second"):
        block = loaded.get_layer(name)
        block.reparameterize()
        assert np.mean(numbers(block.fused_conv.kernel) == 0) == before[name]
    assert sparsities(loaded) == before
    assert relative_difference(loaded(x), expected) < TOLERANCE


def test_a_network_of_the_family_is_sparse_after_folding() -> None:
    network = make_network()
    pruning = MagnitudePruning(CubicSchedule(0.6, 0, 1), frequency=1)
    pruning.set_model(network)
    pruning.set_params({"epochs": 1, "steps": 1})
    pruning.on_train_begin()
    pruning.on_epoch_begin(0)
    pruning.on_train_batch_end(0)
    branched = sparsity_report(network)
    kernels = [layer for layer in branched if layer.layer != "head"]
    assert all(layer.sparsity == pytest.approx(0.6, abs=0.01) for layer in kernels)
    assert len(kernels) == 2 + 2 + 3 * 2 + 2
    expected = numbers(network(pictures()))
    network.reparameterize(fold=True)
    assert sparsity_report(network) == branched
    assert relative_difference(network(pictures()), expected) < TOLERANCE


def test_the_largest_stay() -> None:
    model = make_model(num_conv_branches=1)
    kernel = model.get_layer("middle").kernel
    before = np.abs(numbers(kernel))
    pruning = MagnitudePruning(CubicSchedule(0.5, 0, 1), frequency=1)
    pruning.set_model(model)
    pruning.on_train_begin()
    pruning.on_train_batch_end(0)
    kept = numbers(kernel) != 0
    assert before[kept].min() > before[~kept].max()


def test_the_identity_is_left_alone() -> None:
    model = make_model()
    train(model, MagnitudePruning(0.9, frequency=1), epochs=1)
    fused = model.get_layer("second").fused().kernel[0, 0]
    assert np.all(np.diag(fused) != 0)
    assert np.mean(fused == 0) == pytest.approx(0.9, abs=0.01)


def test_a_number_means_the_first_half_of_the_run() -> None:
    pruning = MagnitudePruning(0.5)
    train(make_model(), pruning)
    assert pruning.schedule == CubicSchedule(0.5, 0, 4)


def test_requests_that_cannot_be() -> None:
    with pytest.raises(CompressionError, match="frequency is 0"):
        MagnitudePruning(0.5, frequency=0)
    with pytest.raises(CompressionError, match="to 1.5"):
        MagnitudePruning(1.5)
    pruning = MagnitudePruning(0.5)
    pruning.set_model(make_model())
    pruning.set_params({"epochs": 1, "steps": None})
    with pytest.raises(CompressionError, match="how many batches.*CubicSchedule"):
        pruning.on_train_begin()
    pruning.set_model(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()]))
    with pytest.raises(CompressionError, match="no convolution or dense layer"):
        pruning.on_train_begin()


def test_the_report_names_layers_once() -> None:
    report = sparsity_report(FastVLM.from_variant("nano", num_classes=3))
    names = [layer.layer for layer in report]
    assert len(set(names)) == len(names) and "stem/block_0" in names
    assert not any("mixer" in name or "large_kernel" in name for name in names)


class Pictures:
    """Four batches an epoch."""

    def __len__(self) -> int:
        return 4

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        x = np.random.default_rng((epoch, index)).uniform(-1, 1, (4, 8, 8, 3))
        return x.astype("float32"), np.arange(4)


class Kill(keras.callbacks.Callback):
    """Fails at a step, as a kill would."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.once
@pytest.mark.slow_on_jax
def test_a_killed_stage_goes_on_with_its_zeros_and_its_schedule(tmp_path: Path) -> None:
    model = make_model()
    model.optimizer.build(model.trainable_variables)
    start = [[np.array(numbers(v)) for v in part] for part in (model.weights, optimizer_of(model))]

    def run(folder: Path, *callbacks: keras.callbacks.Callback) -> None:
        pruning = [MagnitudePruning(0.6, frequency=3), *callbacks]
        Stage(model, Pictures(), steps=8, segment=2, callbacks=pruning).run(folder)

    def begin() -> None:
        for part, values in zip((model.weights, optimizer_of(model)), start, strict=True):
            for variable, value in zip(part, values, strict=True):
                variable.assign(value)

    run(tmp_path / "whole")
    whole = [np.array(numbers(v)) for v in model.weights]
    assert sparsities(model)["second"] == pytest.approx(0.6, abs=0.01)
    begin()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", Kill(5))
    for finished in (False, True):
        begin()
        if finished:  # killed after the last state
            shutil.rmtree(tmp_path / "killed" / "finished")
        run(tmp_path / "killed")
        for ours, theirs in zip(model.weights, whole, strict=True):
            np.testing.assert_array_equal(numbers(ours), theirs)


def optimizer_of(model: keras.Model) -> list[Any]:
    return list(model.optimizer.variables)


@pytest.mark.once
def test_what_is_frozen_is_left_alone() -> None:
    model = make_model()
    model.get_layer("first").trainable = False
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [numbers(v) for v in model.get_layer("first").weights]
    train(model, MagnitudePruning(0.5))
    for old, now in zip(before, model.get_layer("first").weights, strict=True):
        np.testing.assert_array_equal(old, numbers(now))
    assert sparsities(model)["middle"] == 0.5
