"""Changing the form of a whole network: files, compiled functions, training, going back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from dl_techniques.errors import FusionError
from dl_techniques.models.vision.fast_vlm.model import FastVLM
from tests.helpers import (
    TOLERANCE,
    check_torch_parameters,
    numbers,
    randomize,
    relative_difference,
    shake,
    values,
)
from tests.models.vision.fast_vlm.small_network import (
    CLASSES,
    make_network,
    make_smaller_network,
    pictures,
)

FORMS = ("branched", "fused", "folded")


def in_form(form: str) -> FastVLM:
    """The small network in one of its three forms."""
    network = make_network()
    if form != "branched":
        network.reparameterize(fold=form == "folded")
    return network


def compile_and_fit(network: FastVLM) -> None:
    """One step."""
    network.compile(keras.optimizers.SGD(0.01), "mse")
    fit(network)


def fit(network: FastVLM) -> None:
    """One step with the optimizer that is there."""
    network.fit(pictures(), np.zeros((2, CLASSES), "float32"), verbose=0)


@pytest.mark.parametrize("fold", [False, True])
def test_fusing_is_idempotent_and_goes_back_exactly(fold: bool) -> None:
    network, x = make_network(), pictures()
    before, order = values(network), [v.path for v in network.weights]
    expected = numbers(network(x))
    for _ in range(2):
        network.reparameterize(fold=fold)
        check_torch_parameters(network)
        assert network.reparameterized and network.folded is fold
        assert relative_difference(network(x), expected) < TOLERANCE
    fused = [id(v) for v in network.weights]
    network.reparameterize(fold=fold)
    assert [id(v) for v in network.weights] == fused
    network.reset_reparameterization()
    check_torch_parameters(network)
    assert not network.reparameterized and not network.folded
    assert [v.path for v in network.weights] == order
    for now, then in zip(values(network), before, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(numbers(network(x)), expected)


@pytest.mark.parametrize("form", FORMS)
def test_files_keep_the_form(form: str, tmp_path: Path) -> None:
    network, x = in_form(form), pictures()
    expected = numbers(network(x))
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    assert loaded.form_state() == network.form_state()
    assert [v.path for v in loaded.weights] == [v.path for v in network.weights]
    np.testing.assert_array_equal(numbers(loaded(x)), expected)
    check_torch_parameters(loaded)
    loaded.reset_reparameterization()
    assert [v.path for v in loaded.weights] == [v.path for v in make_network().weights]
    assert relative_difference(loaded(x), expected) < TOLERANCE
    loaded.reparameterize(fold=True)
    assert relative_difference(loaded(x), expected) < TOLERANCE


def test_one_part_can_be_fused_and_saved(tmp_path: Path) -> None:
    network, x = make_network(), pictures()
    expected = numbers(network(x))
    network.stem.reparameterize()
    network.stages[0].blocks[0].conv_ffn.reparameterize(fold=True)
    assert network.stem.reparameterized and not network.reparameterized
    check_torch_parameters(network)
    part = numbers(network(x))
    assert relative_difference(part, expected) < TOLERANCE
    network.save(tmp_path / "part.keras")
    loaded = keras.saving.load_model(tmp_path / "part.keras")
    assert loaded.form_state() == network.form_state()
    np.testing.assert_array_equal(numbers(loaded(x)), part)
    loaded.reset_reparameterization()
    assert relative_difference(loaded(x), expected) < TOLERANCE


def test_a_trained_folded_network_goes_back_and_keeps_that_in_files(tmp_path: Path) -> None:
    network, x = make_network(), pictures()
    network.reparameterize(fold=True)
    rng = np.random.default_rng(5)
    network.set_weights(
        [w + 0.05 * np.abs(w).max() * rng.standard_normal(w.shape) for w in network.get_weights()]
    )
    expected = numbers(network(x))
    network.reset_reparameterization()
    forms = network.form_config()
    assert isinstance(forms, dict) and set(forms.values()) == {False, "biased"}
    assert not any(network.form_state().values())
    check_torch_parameters(network)
    assert relative_difference(network(x), expected) < TOLERANCE
    branched = numbers(network(x))
    network.save(tmp_path / "network.keras")
    network.save_to_preset(tmp_path / "preset")
    for loaded in (
        keras.saving.load_model(tmp_path / "network.keras"),
        FastVLM.from_preset(tmp_path / "preset"),
    ):
        assert loaded.form_config() == forms
        assert [v.path for v in loaded.weights] == [v.path for v in network.weights]
        np.testing.assert_array_equal(numbers(loaded(x)), branched)
        check_torch_parameters(loaded)
    network.reparameterize()
    assert isinstance(network.form_config(), dict)
    network.reparameterize(fold=True)
    assert network.form_config() == "folded"
    assert relative_difference(network(x), expected) < TOLERANCE


def test_predict_is_never_stale() -> None:
    network, x = make_network(), pictures()
    before = network.predict(x, verbose=0)
    # Only the position changes: as many variables of the same shapes as before.
    network.stages[2].position.reparameterize()
    assert relative_difference(network.predict(x, verbose=0), before) < TOLERANCE
    network.reparameterize()
    assert relative_difference(network.predict(x, verbose=0), before) < TOLERANCE
    for variable in network.stem.weights:
        variable.assign(np.zeros(variable.shape, "float32"))
    blank = network.predict(x, verbose=0)
    assert relative_difference(blank, before) > 0.01
    assert relative_difference(blank, network(x)) < TOLERANCE


def test_evaluate_follows_the_form() -> None:
    network, x = make_smaller_network(), pictures()
    y = np.zeros((2, CLASSES), "float32")
    network.compile(loss="mse")
    before = network.evaluate(x, y, verbose=0)
    network.reparameterize(fold=True)
    assert abs(network.evaluate(x, y, verbose=0) - before) < 1e-4 * before
    shake(network.stem, 0.3)
    expected = float((numbers(network(x)) ** 2).mean())
    assert abs(network.evaluate(x, y, verbose=0) - expected) < 1e-4 * expected


def test_training_after_fusing_needs_compile() -> None:
    network, x = make_smaller_network(), pictures()
    compile_and_fit(network)
    network.reparameterize()
    expected = numbers(network(x))
    with pytest.raises(FusionError, match=r"compile\(\) again"):
        fit(network)
    # The refused call has not cost the weights.
    np.testing.assert_array_equal(numbers(network(x)), expected)
    before = values(network)
    compile_and_fit(network)
    moved = [(now != then).any() for now, then in zip(values(network), before, strict=True)]
    assert all(moved)


def test_an_optimizer_that_has_begun_does_not_know_branches_that_came_back() -> None:
    network = make_smaller_network()
    network.compile("sgd", "mse")
    for _ in range(2):  # before the first step no harm is done
        network.reparameterize()
        network.reset_reparameterization()
    fit(network)
    network.reparameterize()
    network.reset_reparameterization()
    with pytest.raises(FusionError, match=r"compile\(\) again"):
        fit(network)
    compile_and_fit(network)


def test_a_trained_fused_network_goes_back_with_what_it_learned() -> None:
    network, x = make_smaller_network(), pictures()
    network.reparameterize()
    before = numbers(network(x))
    compile_and_fit(network)
    trained = numbers(network(x))
    assert relative_difference(trained, before) > 1e-3
    network.reset_reparameterization()
    assert relative_difference(network(x), trained) < TOLERANCE
    with pytest.raises(FusionError, match=r"compile\(\) again"):
        fit(network)
    compile_and_fit(network)


def test_a_folded_network_does_not_train() -> None:
    network = make_smaller_network()
    network.reparameterize(fold=True)
    network.compile("sgd", "mse")
    with pytest.raises(FusionError, match="folded.*reset_reparameterization"):
        fit(network)
    network.reset_reparameterization()
    compile_and_fit(network)


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_a_compiled_network_is_saved_after_fusing(tmp_path: Path) -> None:
    network, x = make_smaller_network(), pictures()
    network.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "mse")
    fit(network)
    network.reparameterize()
    expected = numbers(network(x))
    network.save(tmp_path / "network.keras")
    loaded = keras.saving.load_model(tmp_path / "network.keras")
    np.testing.assert_array_equal(numbers(loaded(x)), expected)
    fit(loaded)


@pytest.mark.parametrize("word", ["reparameterize", "reset_reparameterization"])
def test_inside_a_traced_function_is_refused(word: str) -> None:
    network = in_form("branched" if word == "reparameterize" else "fused")
    before = values(network)
    with keras.StatelessScope(), pytest.raises(FusionError, match=network.name):
        getattr(network, word)()
    for now, then in zip(values(network), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_a_frozen_network_stays_frozen() -> None:
    network = make_network()
    network.trainable = False
    for change in (network.reparameterize, network.reset_reparameterization):
        change()
        outer = keras.Sequential([network, keras.layers.Dense(2)])
        outer.build((None, 32, 32, 3))
        assert len(outer.trainable_variables) == 2


READER = """
import sys
import keras, numpy as np
from dl_techniques.models.vision.fast_vlm.model import FastVLM
x, expected = np.load("x.npy"), np.load("expected.npy")
for written in sys.argv[1:]:
    for form in ("branched", "fused", "folded"):
        network = keras.saving.load_model(f"{written}_{form}.keras")
        assert network.reparameterized == (form != "branched")
        got = np.asarray(keras.ops.convert_to_numpy(network(x)))
        difference = abs(got - expected).max() / abs(expected).max()
        assert difference < 1e-5, (written, form, difference)
        network.save(f"{keras.backend.backend()}_{form}.keras")
print(keras.backend.backend(), "agrees")
"""


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="once is enough")
def test_files_go_between_backends(tmp_path: Path) -> None:
    x = pictures()
    np.save(tmp_path / "x.npy", x)
    for form in FORMS:
        network = in_form(form)
        network.save(tmp_path / f"tensorflow_{form}.keras")
        if form == "branched":
            expected = numbers(network(x))
    np.save(tmp_path / "expected.npy", expected)
    # TensorFlow writes, JAX reads and writes, torch reads both and writes, TensorFlow reads all.
    run_reader(tmp_path, "jax", "tensorflow")
    run_reader(tmp_path, "torch", "tensorflow", "jax")
    for written in ("jax", "torch"):
        for form in FORMS:
            loaded = keras.saving.load_model(tmp_path / f"{written}_{form}.keras")
            assert relative_difference(loaded(x), expected) < TOLERANCE


def run_reader(folder: Path, backend: str, *written: str) -> None:
    """Reads the files of other backends in a process of its own, and writes them again."""
    root = Path(__file__).resolve().parents[4]
    environment = dict(os.environ, KERAS_BACKEND=backend, PYTHONPATH=str(root))
    done = subprocess.run(
        [sys.executable, "-c", READER, *written],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith(f"{backend} agrees")


def test_reset_keeps_the_state_of_other_networks() -> None:
    first, second = make_network(), make_network()
    x = pictures()
    randomize(second, seed=5)
    expected = numbers(second(x))
    first.reparameterize()
    np.testing.assert_array_equal(numbers(second(x)), expected)
