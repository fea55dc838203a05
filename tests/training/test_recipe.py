"""Recipes: what YAML may say, and stages that run one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dl_techniques.errors import TrainingError
from dl_techniques.training import Recipe, StageSettings, has_begun
from tests.training.test_stage import Kill, Noise, lines_of, network

pytestmark = pytest.mark.once

TWO: dict[str, Any] = {
    "seed": 4,
    "stages": {
        "first": {"steps": 4, "segment": 2, "optimizer": {"learning_rate": 0.01}},
        "second": {"uses": "first", "epochs": 1, "passes": 2, "optimizer": {"average": 0.9}},
    },
}


class Makers:
    """Trains a small network; each stage begins with the weights of the one before."""

    def __init__(self, kill: tuple[str, int] | None = None) -> None:
        self.kill, self.made = kill, list[str]()

    def first(self, settings: StageSettings, folder: Path) -> None:
        self.made.append(settings.name)
        model = network()
        if settings.name == "second":
            model.load_weights(folder / "first" / "made.weights.h5")
        kill = [Kill(self.kill[1])] if self.kill and self.kill[0] == settings.name else []
        place = folder / settings.name
        settings.train(place, model, Noise(), compiling={"loss": "mse"}, callbacks=kill)
        model.save_weights(place / "made.weights.h5")


def run(folder: Path, makers: Makers, values: dict[str, Any] = TWO) -> list[str]:
    said: list[str] = []
    Recipe.from_dict(values).run(folder, {"first": makers.first}, said.append)
    return said


def weights_of(folder: Path) -> list[np.ndarray]:
    model = network()
    model.load_weights(folder / "second" / "made.weights.h5")
    return model.get_weights()


def test_stages_follow_each_other_and_go_on_after_a_kill(tmp_path: Path) -> None:
    makers = Makers()
    said = run(tmp_path / "whole", makers)
    assert makers.made == ["first", "second"]
    assert [line.split(":")[0] for line in said] == ["stage first", "stage second"]
    assert [line["step"] for line in lines_of(tmp_path / "whole" / "first")] == [2, 4]
    killed = Makers(("second", 3))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", killed)
    assert has_begun(tmp_path / "killed" / "second")
    again = Makers()
    run(tmp_path / "killed", again)
    assert again.made == ["second"]
    for ours, theirs in zip(
        weights_of(tmp_path / "killed"), weights_of(tmp_path / "whole"), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert not run(tmp_path / "whole", Makers(("first", 1)))


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    run(tmp_path, Makers())
    changed = {**TWO, "seed": 5}
    with pytest.raises(TrainingError, match="first was made with seed=4, the recipe says 5"):
        run(tmp_path, Makers(), changed)


def test_a_recipe_is_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(TWO, sort_keys=False))
    stages = Recipe.from_file(path).stages
    assert list(stages) == ["first", "second"]
    assert (stages["first"].seed, stages["second"].seed, stages["second"].passes) == (4, 5, 2)
    assert stages["second"].optimizer.average == 0.9
    assert (stages["first"].uses, stages["second"].uses) == ("first", "first")


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ({"epocs": 3}, "recipe: one: unknown key 'epocs'; did you mean 'epochs'"),
        ({"steps": 3, "minutes": 2}, "stage one: give one of epochs, steps, minutes"),
        ({}, "stage one: give one of epochs, steps, minutes"),
        ({"steps": "3"}, "recipe: one.steps must be int | None, got '3'"),
        ({"steps": 0}, "stage one: steps is 0; expected more than 0"),
        ({"steps": 3, "name": "x"}, "unknown key 'name'"),
        ({"steps": 3, "optimizer": {"rate": 1}}, "one.optimizer: unknown key 'rate'"),
        ({"steps": 3, "optimizer": {"kind": "sgd"}}, "optimizer.kind is 'sgd'; it must be one of"),
        ({"steps": 3, "optimizer": {"learning_rate": -1}}, "learning_rate is -1; it must be above"),
        ({"steps": 3, "options": [1]}, r"one.options must be a mapping, got \[1\]"),
        ([1], r"one must be a mapping, got \[1\]"),
    ],
)
def test_what_is_wrong_is_told(stage: Any, told: str) -> None:
    with pytest.raises(TrainingError, match=told.replace("|", r"\|")):
        Recipe.from_dict({"stages": {"one": stage}})


def test_wrong_files_and_makers_are_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="unknown key 'stage'; did you mean 'stages'"):
        Recipe.from_dict({"stage": {}})
    with pytest.raises(TrainingError, match="stages must be a mapping"):
        Recipe.from_dict({"stages": {}})
    with pytest.raises(TrainingError, match="seed must be int, got 'x'"):
        Recipe.from_dict({"seed": "x", "stages": {"one": {"steps": 1}}})
    with pytest.raises(TrainingError, match=r"none.yaml cannot be read: No such file"):
        Recipe.from_file(tmp_path / "none.yaml")
    recipe = Recipe.from_dict({"stages": {"encodre": {"steps": 1}}})
    with pytest.raises(TrainingError, match="nothing makes 'encodre'; did you mean 'encoder'"):
        recipe.run(tmp_path, {"encoder": Makers().first})
    with pytest.raises(TrainingError, match="stage encodre: options: unknown key 'a'"):
        Recipe.from_dict({"stages": {"encodre": {"steps": 1, "options": {"a": 1}}}}).stages[
            "encodre"
        ].read_options(StageSettings)
