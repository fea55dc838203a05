"""A stage that is killed at any step and started again ends at the numbers of one that was not."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dl_techniques.checkpoints.tensor_files import open_tensors
from dl_techniques.errors import PromptError, TrainingError
from dl_techniques.training import Stage, WeightAverage, has_begun, is_finished
from tests.helpers import numbers

STEPS, SEGMENT, EPOCH = 8, 3, 5


class Noise:
    """Batches that are functions of their place."""

    def __len__(self) -> int:
        return EPOCH

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((3, epoch, index))
        x = rng.normal(size=(4, 6)).astype("float32")
        return x, x[:, :1] - x[:, 1:2] ** 2


def network() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(5, activation="relu"),
            keras.layers.BatchNormalization(momentum=0.8),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(1),
        ]
    )


def compiled(average: bool = False) -> keras.Model:
    """BatchNorm, Dropout, AdamW, cosine, accumulation, and Keras' average if asked for."""
    model = network()
    cosine = keras.optimizers.schedules.CosineDecay(
        1e-3, STEPS - 2, warmup_target=0.05, warmup_steps=2
    )
    optimizer = keras.optimizers.AdamW(
        cosine, weight_decay=0.1, gradient_accumulation_steps=2, use_ema=average, ema_momentum=0.6
    )
    model.compile(optimizer, loss="mse")
    return model


class Kill(keras.callbacks.Callback):
    """Fails after so many steps, as a kill would."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def stage(model: keras.Model, *callbacks: keras.callbacks.Callback, **options: Any) -> Stage:
    options = {"steps": STEPS, "segment": SEGMENT, **options}
    return Stage(model, Noise(), callbacks=[WeightAverage(0.7), *callbacks], **options)


def variables(model: keras.Model) -> list[keras.Variable]:
    """Weights, statistics, seeds, optimizer."""
    return [*model.trainable_variables, *model.non_trainable_variables, *model.optimizer.variables]


def values_of(model: keras.Model) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(v.value)) for v in variables(model)]


def set_values(model: keras.Model, values: list[np.ndarray]) -> None:
    for variable, value in zip(variables(model), values, strict=True):
        variable.assign(value.copy())  # PyTorch would take the memory itself


def begin(model: keras.Model, start: list[np.ndarray]) -> None:
    """The beginning that every run of a test shares; PyTorch draws from a state of its own."""
    set_values(model, start)
    keras.utils.set_random_seed(5)


def check_same(model: keras.Model, expected: list[np.ndarray]) -> None:
    for variable, ours, theirs in zip(variables(model), values_of(model), expected, strict=True):
        assert np.array_equal(ours, theirs), variable.path


def kill(model: keras.Model, folder: Path, after: int, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        stage(model, Kill(after), **options).run(folder)


def test_a_run_killed_at_any_step_ends_as_one_that_was_not(tmp_path: Path) -> None:
    model = compiled(average=True)
    model.optimizer.build(model.trainable_variables)
    start = values_of(model)
    keras.utils.set_random_seed(5)
    outcome = stage(model).run(tmp_path / "whole")
    assert outcome.steps == STEPS
    whole = values_of(model)
    lines = [line["loss"] for line in lines_of(tmp_path / "whole")]
    for after in range(1, STEPS + 1):
        folder = tmp_path / f"killed-{after}"
        begin(model, start)
        kill(model, folder, after)
        # nothing of what the process knew is left
        begin(model, [np.full_like(value, 7) for value in start])
        stage(model).run(folder)
        check_same(model, whole)
        assert [line["loss"] for line in lines_of(folder)] == lines
    # killed after the last state, before the weights were written
    shutil.rmtree(folder / "finished")
    begin(model, [np.full_like(value, 7) for value in start])
    stage(model, Kill(1)).run(folder)
    check_same(model, whole)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_another_process_goes_on_with_a_model_of_its_own(tmp_path: Path) -> None:
    model = compiled()
    model.optimizer.build(model.trainable_variables)
    start = values_of(model)
    keras.utils.set_random_seed(5)
    stage(model).run()
    whole = values_of(model)
    begin(model, start)
    kill(model, tmp_path, 4)
    keras.utils.set_random_seed(99)
    fresh = compiled()
    assert fresh.weights[0].path != model.weights[0].path
    stage(fresh).run(tmp_path)
    check_same(fresh, whole)


def test_segments_are_ordinary_epochs(tmp_path: Path) -> None:
    """`fit` on the same batches in a row, without segments, states or threads."""
    model = compiled()
    model.optimizer.build(model.trainable_variables)
    start = values_of(model)
    keras.utils.set_random_seed(5)
    Stage(model, Noise(), steps=STEPS, segment=SEGMENT).run(tmp_path)
    ours = values_of(model)
    begin(model, start)
    for step in range(STEPS):
        model.train_on_batch(*Noise().batch(*divmod(step, EPOCH)))
    check_same(model, ours)


def test_a_finished_stage_gives_its_weights_and_is_not_run_again(tmp_path: Path) -> None:
    model = compiled()
    assert not has_begun(tmp_path)
    first = stage(model).run(tmp_path)
    weights = values_of(model)[: len(model.weights)]
    assert is_finished(tmp_path) and has_begun(tmp_path)
    set_values(model, [np.full_like(value, 7) for value in values_of(model)])
    again = stage(model, Kill(1)).run(tmp_path)
    assert (again.steps, again.metrics) == (first.steps, first.metrics)
    for ours, theirs in zip(values_of(model)[: len(model.weights)], weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_last_two_states_are_kept(tmp_path: Path) -> None:
    stage(compiled()).run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "finished",
        "metrics.jsonl",
        "step-0000000006",
        "step-0000000008",
    ]


def test_a_half_written_state_and_line_are_not_seen(tmp_path: Path) -> None:
    model = compiled()
    model.optimizer.build(model.trainable_variables)
    start = values_of(model)
    keras.utils.set_random_seed(5)
    stage(model).run()
    whole = values_of(model)
    begin(model, start)
    kill(model, tmp_path, 5)
    (tmp_path / ".step-0000000005.partial").mkdir()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    stage(model).run(tmp_path)
    check_same(model, whole)
    assert [line["step"] for line in lines_of(tmp_path)] == [3, 6, 8]


def test_average_is_that_of_the_updates() -> None:
    model = compiled()
    model.optimizer.build(model.trainable_variables)
    start = values_of(model)
    keras.utils.set_random_seed(5)
    stage(model).run()
    averaged = [numbers(v) for v in model.trainable_variables]
    begin(model, start)
    history = []
    for step in range(STEPS):
        model.train_on_batch(*Noise().batch(*divmod(step, EPOCH)))
        history.append([numbers(v) for v in model.trainable_variables])
    expected = history[1]
    for values in history[3::2]:
        expected = [0.7 * old + 0.3 * new for old, new in zip(expected, values, strict=True)]
    for ours, theirs in zip(averaged, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_folder_of_another_stage_is_refused(tmp_path: Path) -> None:
    model = compiled()
    kill(model, tmp_path, 4)
    with pytest.raises(TrainingError, match="belongs to a stage with steps=8, this one has 9"):
        stage(model, steps=9).run(tmp_path)
    with pytest.raises(TrainingError, match="with rate=None, this one has 0.1"):
        stage(model, settings={"rate": 0.1}).run(tmp_path)
    slower = compiled()
    config = slower.optimizer.get_config()
    config["learning_rate"]["config"]["warmup_target"] = 0.01
    slower.compile(keras.optimizers.AdamW.from_config(config), "mse")
    told = r"optimizer.learning_rate.config.warmup_target=0.05, this one has 0.01"
    with pytest.raises(TrainingError, match=told):
        stage(slower).run(tmp_path)
    other = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    with pytest.raises(TrainingError, match="another network or optimizer"):
        other.compile(compiled().optimizer, "mse")
        Stage(other, Noise(), steps=STEPS).run(tmp_path)


def test_variables_of_other_names_or_shapes_are_refused(tmp_path: Path) -> None:
    def model(units: int, name: str) -> keras.Model:
        dense = keras.layers.Dense(units, name=name)
        return keras.Sequential([keras.Input((6,)), dense, keras.layers.Dense(1)])

    def run(made: keras.Model, folder: Path) -> None:
        made.compile("sgd", "mse")
        Stage(made, Noise(), steps=4, segment=2, callbacks=[Kill(3)]).run(folder)

    with pytest.raises(KeyboardInterrupt):
        run(model(3, "wide"), tmp_path)
    for units, name in ((4, "wide"), (3, "other")):
        changed = model(units, name)
        before = changed.get_weights()
        with pytest.raises(TrainingError, match="variable 00000 is .*wide"):
            run(changed, tmp_path)
        for ours, theirs in zip(changed.get_weights(), before, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_loss_that_is_no_number_ends_the_stage_and_leaves_the_last_state(tmp_path: Path) -> None:
    class Broken(Noise):
        def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
            x, y = super().batch(epoch, index)
            return x, y * (np.nan if (epoch, index) == (0, 4) else 1)

    model = network()
    model.compile("sgd", "mse")
    with pytest.raises(TrainingError, match="the loss became nan by step 6: lower"):
        Stage(model, Broken(), steps=8, segment=3).run(tmp_path)
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-0000000000", "step-0000000003"]


def test_what_goes_wrong_with_a_batch_is_told_as_it_is() -> None:
    class Broken(Noise):
        def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
            if index == 4:
                raise PromptError("record 16 has no answer")
            return super().batch(epoch, index)

    model = network()
    model.compile("sgd", "mse")
    with pytest.raises(PromptError, match="^record 16 has no answer$"):
        Stage(model, Broken(), steps=8).run()


@pytest.mark.once
def test_frozen_layers_are_not_written(tmp_path: Path) -> None:
    model = network()
    frozen = model.layers[0]
    frozen.trainable = False
    with pytest.raises(KeyboardInterrupt):
        Stage(
            model, Noise(), "sgd", steps=4, segment=2, compiling={"loss": "mse"}, frozen=[frozen],
            callbacks=[Kill(3)],
        ).run(tmp_path)  # fmt: skip
    with open_tensors(tmp_path / "step-0000000002" / "state.safetensors") as store:
        assert len(store) and not [name for name in store if frozen.kernel.path in name]
    stage = Stage(
        model, Noise(), "sgd", steps=4, segment=2, compiling={"loss": "mse"}, frozen=[frozen]
    )
    assert stage.run(tmp_path).steps == 4
    with pytest.raises(TrainingError, match="is said to be frozen, but it learns"):
        Stage(model, Noise(), steps=4, frozen=[model.layers[-1]])


@pytest.mark.once
def test_wrong_arguments_are_told() -> None:
    model = compiled()
    for options, told in (
        ({}, "either steps or minutes"),
        ({"steps": 3, "minutes": 1.0}, "either steps or minutes"),
        ({"steps": 0}, "steps is 0; expected more than 0"),
        ({"steps": 3, "segment": 0}, "a segment of 0 steps"),
        ({"minutes": 1.0}, "give AdamW a number as its learning_rate"),
    ):
        with pytest.raises(TrainingError, match=told):
            Stage(model, Noise(), **options)
    with pytest.raises(TrainingError, match="takes data with __len__ and batch"):
        Stage(model, [1, 2], steps=3)
    with pytest.raises(TrainingError, match="is not compiled: give the stage an optimizer"):
        Stage(network(), Noise(), steps=3)


@pytest.mark.full
def test_a_killed_process_is_gone_on_with_by_another(tmp_path: Path) -> None:
    def run(name: str, *steps: str) -> int:
        command = [sys.executable, "-m", "tests.training.killed_run", str(tmp_path / name), *steps]
        return subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode

    assert run("whole") == 0
    assert run("killed", "5") == -signal.SIGKILL
    assert not is_finished(tmp_path / "killed")
    assert run("killed") == 0
    for name in ("finished", "step-0000000008"):
        ours, theirs = (tmp_path / n / name / "state.safetensors" for n in ("killed", "whole"))
        assert ours.read_bytes() == theirs.read_bytes()
